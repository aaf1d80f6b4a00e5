//! Lookups from memory.

pub(crate) mod resolve;

use std::{fmt, sync::Arc};

use roundsman_protocol::{Instance, InstanceId, Query};

pub use self::resolve::Resolve;
use crate::{
    balance::{Balancer, Pick},
    cache::Feed,
    changes::Changes,
    discovery::Discovery,
    error::Error,
    snapshot::Snapshot,
};

/// The instances of a service, or of what else a query matches, kept up to date in memory; made by
/// [`Discovery::resolver`]. Cheap to clone.
///
/// All resolvers of a [`Discovery`] share one connection and one pending question on it. [`Resolver::pick`] and
/// [`Resolver::instances`] are synchronous and ask nobody: they answer what the server told last, which
/// is up to date within milliseconds. When all servers are away they answer the last known list, and
/// [`Snapshot::stale`] tells its age. The list is followed until the last resolver of it is dropped, or until
/// [`Discovery::close`]; after that it stays as it is.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// let products = discovery.resolver("product").await?;
/// match products.pick() {
///     Some(product) => println!("ask {}", product.address),
///     None => println!("nobody sells at the moment"),
/// }
/// if let Some(age) = products.snapshot().stale() {
///     println!("as of {age:?} ago: no discovery server answers");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Resolver {
    feed: Arc<Feed>,
    balancer: Arc<Balancer>,
    discovery: Discovery,
}

// === impl Resolver ===

impl Resolver {
    /// One of the instances, chosen by the [policy](Resolve::policy); `None` when there is none at the moment.
    /// Takes some tens of nanoseconds.
    #[must_use]
    pub fn pick(&self) -> Option<Pick> {
        self.balancer.pick(&self.feed.current())
    }

    /// As [`Resolver::pick`], but another instance than these: for the next try after a failed call. With no other left,
    /// one of these after all.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").await?;
    /// let mut tried = Vec::new();
    /// while let Some(product) = products.pick_except(&tried).filter(|_| tried.len() < 3) {
    ///     tried.push(product.id.clone());
    ///     // … call it; end the loop when that worked …
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pick_except(&self, tried: &[InstanceId]) -> Option<Pick> {
        self.balancer.pick_except(&self.feed.current(), tried)
    }

    /// The instance for this key, always the same for as long as it is there: for callers that want to find warm
    /// caches. All callers agree, whatever their policy; weights make no difference. When an instance goes, only its own
    /// keys move. Takes a few nanoseconds per instance.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").await?;
    /// let apple = products.pick_for("aaa");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pick_for(&self, key: impl AsRef<[u8]>) -> Option<Pick> {
        self.balancer.pick_for(&self.feed.current(), key.as_ref())
    }

    /// Those of the instances that [`Resolver::pick`] passes over at the moment, because calls to them kept failing; see
    /// [`CircuitBreaker`](crate::CircuitBreaker).
    #[must_use]
    pub fn ejected(&self) -> Vec<Arc<Instance>> {
        self.balancer.ejected(&self.feed.current())
    }

    /// All instances that are handed out, near or far, sorted by service and id.
    #[must_use]
    pub fn instances(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(self.feed.current().instances())
    }

    /// The same with what else is known about the list: whether it is stale, and how old.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").await?;
    /// if products.snapshot().stale().is_some() {
    ///     println!("no server confirms this list at the moment");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.feed.snapshot()
    }

    /// A stream of snapshots: the present one, and another after each change. See [`Changes`].
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(self.clone())
    }

    /// The instances for tower, each made into a service or whatever `make` makes of it. See [`Endpoints`](crate::Endpoints).
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use futures::StreamExt;
    /// use std::sync::Arc;
    /// use tower::discover::Change;
    ///
    /// let mut endpoints = discovery.resolver("product").await?.endpoints(Arc::clone);
    /// while let Some(Ok(change)) = endpoints.next().await {
    ///     match change {
    ///         Change::Insert(id, instance) => println!("{id} is at {}", instance.address),
    ///         Change::Remove(id) => println!("{id} is gone"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tower")]
    pub fn endpoints<F, S>(&self, make: F) -> crate::Endpoints<F>
    where
        F: FnMut(&Arc<Instance>) -> S,
    {
        crate::Endpoints::new(self, make)
    }

    /// Waits until there is an instance to be picked. For callers that may start before the service they call. Cancel safe.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").in_background()?;
    /// let first = products.wait_for_first().await?;
    /// println!("here it is: {}", first.address);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn wait_for_first(&self) -> Result<Arc<Instance>, Error> {
        let snapshot = self.wait_until(|snapshot| self.balancer.first(snapshot).is_some()).await?;
        self.balancer.first(&snapshot).ok_or(Error::Closed)
    }

    /// What is resolved.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.feed.query
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Returns when the client is closed.
    pub(crate) async fn closed(&self) {
        self.discovery.inner.stop.cancelled().await;
    }

    async fn wait_until(&self, condition: impl Fn(&Arc<Snapshot>) -> bool) -> Result<Arc<Snapshot>, Error> {
        let mut changes = self.feed.changes();
        let met =
            async { changes.wait_for(|snapshot| condition(snapshot)).await.map(|snapshot| Arc::clone(&snapshot)) };
        tokio::select! {
            biased;
            snapshot = met => snapshot.map_err(|_| Error::Closed),
            () = self.closed() => Err(Error::Closed),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("query", self.query()).field("snapshot", &**self.feed.current()).finish()
    }
}
