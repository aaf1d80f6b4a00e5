//! Questions that a server answers.

use std::sync::Arc;

use roundsman_protocol::{
    Graph, HistoryPage, HistoryQuery, Instance, InstanceId, Query, ServiceName, ServiceSummary, Status, Trouble,
};

use super::Discovery;
use crate::error::Error;

impl Discovery {
    /// One instance of a service that is handed out, in turn and by weight.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when the service has none.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// match discovery.get("product").await {
    ///     Ok(product) => println!("ask {}", product.address),
    ///     Err(error) if error.is_not_found() => println!("nobody sells at the moment"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get<S>(&self, service: S) -> Result<Arc<Instance>, Error>
    where
        S: TryInto<ServiceName>,
        Error: From<S::Error>,
    {
        let service = service.try_into()?;
        self.call(self.inner.timeout, |connection, context| {
            let service = service.clone();
            async move { connection.client.get(context, service).await }
        })
        .await
    }

    /// The instances that a query matches. None is no error, unless the query is about one service alone that nobody
    /// registered: that is most likely a mistyped name.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::{Query, Scope};
    /// let query = Query::service("product".try_into()?).scope(Scope::All);
    /// for instance in discovery.list(query).await? {
    ///     println!("{} {} {}: {}", instance.id, instance.address, instance.status, instance.reason);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list(&self, query: Query) -> Result<Vec<Arc<Instance>>, Error> {
        query.validate()?;
        self.call(self.inner.timeout, |connection, context| {
            let query = query.clone();
            async move { connection.list(context, query).await }
        })
        .await
    }

    /// All services of the namespace, with how many of their instances are in which status.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// for service in discovery.services().await? {
    ///     println!("{}: {} passing", service.name, service.passing);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn services(&self) -> Result<Vec<ServiceSummary>, Error> {
        self.call(self.inner.timeout, |connection, context| async move { connection.client.services(context).await })
            .await
    }

    /// The whole server at this moment, with the services of this namespace.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let status = discovery.status().await?;
    /// println!("{} serves since {}", status.version, status.started_at);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn status(&self) -> Result<Status, Error> {
        self.call(self.inner.timeout, |connection, context| async move { connection.client.status(context).await })
            .await
    }

    /// Which service of this namespace calls which, as the connected server has seen it since its start. Callers appear
    /// in it under the name that they gave to [`Builder::service`](crate::Builder::service).
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let graph = discovery.graph().await?;
    /// for edge in &graph.edges {
    ///     let unknown = if graph.knows(&edge.callee) { "" } else { " (nobody has that name)" };
    ///     println!("{} -> {}{unknown}: {} lookups", edge.caller, edge.callee, edge.lookups);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn graph(&self) -> Result<Graph, Error> {
        self.call(self.inner.timeout, |connection, context| async move { connection.client.graph(context).await }).await
    }

    /// What happened in this namespace, newest first: who registered, flipped, was evicted and on which evidence, was drained,
    /// replaced or taken out, when, and who asked for it. As far back as the server's store remembers; where it forgot
    /// something there is an event of the kind [`Cut`](roundsman_protocol::EventKind::Cut).
    ///
    /// An answer has at most [`MAX_EVENTS`](roundsman_protocol::history::MAX_EVENTS); [`HistoryPage::next`] is where the
    /// next one begins.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::protocol::HistoryQuery;
    ///
    /// let mut query = HistoryQuery { service: Some("product".try_into()?), ..HistoryQuery::default() };
    /// loop {
    ///     let page = discovery.history(query.clone()).await?;
    ///     for event in &page.events {
    ///         println!("{} {} {}", event.at, event.kind, event.reason);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     query.after = Some(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call; [`DiscoveryError::StoreUnavailable`](crate::DiscoveryError::StoreUnavailable) while the store
    /// does not answer, and [`Error::Invalid`] for a server whose release has no history.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, Error> {
        query.validate()?;
        self.call(self.inner.timeout, |connection, context| {
            let query = query.clone();
            async move { connection.client.history(context, query).await }
        })
        .await
    }

    /// Tells the server that an instance could not be used, so that it is visited now and not at its next turn.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let product = discovery.get("product").await?;
    /// // … it did not answer …
    /// discovery.report(&product.id, roundsman::Trouble::Timeout).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every call.
    pub async fn report(&self, id: &InstanceId, trouble: Trouble) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let (id, trouble) = (id.clone(), trouble.clone());
            async move { connection.client.report(context, id, trouble).await }
        })
        .await
    }
}
