//! What follows a service, and calls it.

use roundsman_protocol::{Query, ServiceName};

use super::Discovery;
use crate::{error::Error, resolver::Resolve, watch::Watch};

impl Discovery {
    /// Follows the instances that a query matches: everything at first, then each change as it happens.
    /// See [`Watch`].
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::{Event, Query};
    ///
    /// let mut changes = discovery.watch(Query::default())?;
    /// while let Some(event) = changes.next().await {
    ///     if let Event::Changed(instance) = event {
    ///         println!("{} is {}", instance.id, instance.status);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the query breaks a rule.
    pub fn watch(&self, query: Query) -> Result<Watch, Error> {
        query.validate()?;
        Ok(Watch::new(self, query))
    }

    /// Follows a service and keeps its instances at hand: lookups from memory, always up to date, and still
    /// answered when no server is. See [`Resolver`](crate::Resolver); await what this returns to get one.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").await?;
    /// if let Some(product) = products.pick() {
    ///     println!("ask {}", product.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolver<S>(&self, service: S) -> Resolve
    where
        S: TryInto<ServiceName>,
        Error: From<S::Error>,
    {
        Resolve::new(self, service.try_into().map(Query::service).map_err(Error::from))
    }

    /// The same for what a query matches: several services, all of them, or those with a tag, metadata, a zone or a
    /// version. The filter is applied here; resolvers of one service share one subscription, however they filter.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::Query;
    ///
    /// let new = Query { version: Some("2".into()), ..Query::service("product".try_into()?) };
    /// let new = discovery.resolver_for(new).await?;
    /// let everything = discovery.resolver_for(Query::default()).await?;
    /// println!("{} of {}", new.instances().len(), everything.instances().len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolver_for(&self, query: Query) -> Resolve {
        Resolve::new(self, query.validate().map(|()| query).map_err(Error::from))
    }

    /// A service to be called over HTTP: found, balanced, repeated elsewhere when that fails. See
    /// [`roundsman::http`](crate::http).
    ///
    /// Asks nobody and cannot fail: what is wrong with the name is told when something is sent.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// let answer = discovery.http("product").get("/product/aaa").send().await?;
    /// println!("{}: {}", answer.status(), answer.text());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "http")]
    pub fn http<S>(&self, service: S) -> crate::http::Service
    where
        S: TryInto<ServiceName>,
        Error: From<S::Error>,
    {
        crate::http::Service::new(self, service.try_into().map_err(Error::from))
    }

    /// A service to be called over gRPC: a channel for the clients that tonic generates, balanced call by call. See
    /// [`roundsman::grpc`](crate::grpc).
    ///
    /// Asks nobody and cannot fail: what is wrong with the name is told by the first call.
    ///
    /// ```no_run
    /// # fn example(discovery: roundsman::Discovery) {
    /// let channel = discovery.grpc("product");
    /// // let mut products = ProductsClient::new(channel);
    /// # }
    /// ```
    #[cfg(feature = "grpc")]
    pub fn grpc<S>(&self, service: S) -> crate::grpc::Channel
    where
        S: TryInto<ServiceName>,
        Error: From<S::Error>,
    {
        crate::grpc::Channel::new(self, service.try_into().map_err(Error::from))
    }

    /// A layer for a `reqwest` client of one's own: requests to `http://SERVICE.roundsman/…` go to the instances of
    /// `SERVICE`. See [`Middleware`](crate::middleware::Middleware).
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
    /// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).with(discovery.middleware()).build();
    /// let answer = client.get("http://product.roundsman/product/aaa").send().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "middleware")]
    pub fn middleware(&self) -> crate::middleware::Middleware {
        crate::middleware::Middleware::new(self)
    }
}
