//! How a resolver is to be, and how it begins.

use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use roundsman_protocol::{DiscoveryError, Host, Invalid, Query, Scope, ServiceName};
use tokio::time::{Instant, timeout_at};

use super::Resolver;
use crate::{
    balance::{Balancer, Nearness, Policy},
    builder::inside_runtime,
    call::LONGEST,
    discovery::Discovery,
    error::Error,
    link::Link,
    share::Share,
};

/// A resolver to be: await it, or say first how. Made by [`Discovery::resolver`].
///
/// Awaiting it returns as soon as there is something to answer lookups from.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use std::time::Duration;
/// use roundsman::Policy;
///
/// let products = discovery
///     .resolver("product")
///     .policy(Policy::PeakEwma)
///     .prefer_zone("eu-1a")
///     .timeout(Duration::from_secs(1))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::is_not_found`] at once for a service that nobody registered, unless
/// [`Resolve::even_if_unknown`]; [`Error::Unreachable`], [`Error::Refused`] or [`Error::Deadline`] when no server answered
/// within the [timeout](Resolve::timeout) and no snapshot file knows the service; [`Error::Invalid`] for a
/// name or a query that breaks a rule; [`Error::Closed`].
#[must_use = "a resolver does nothing until it is awaited or started in the background"]
pub struct Resolve {
    discovery: Discovery,
    query: Result<Query, Error>,
    timeout: Duration,
    even_if_unknown: bool,
    keep_missing: bool,
    policy: Policy,
    nearness: Nearness,
    share: Option<Share>,
}

// === impl Resolve ===

impl Resolve {
    pub(crate) fn new(discovery: &Discovery, query: Result<Query, Error>) -> Self {
        let timeout = discovery.inner.timeout;
        let (policy, nearness) = (Policy::default(), Nearness::default());
        let (discovery, even_if_unknown, keep_missing) = (discovery.clone(), false, false);
        Self { discovery, query, timeout, even_if_unknown, keep_missing, policy, nearness, share: None }
    }

    /// How long to wait for the first list. By default as long as [a call may take](crate::Builder::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST);
        self
    }

    /// Also for a service that nobody has registered yet: its list is empty until somebody does.
    pub fn even_if_unknown(mut self) -> Self {
        self.even_if_unknown = true;
        self
    }

    /// Also keeps, for as long as [`Builder::empty_grace`](crate::Builder::empty_grace), instances that a server which is new
    /// to us does not know, or not yet: until they are back, or the server says that they are gone. Otherwise the list is what
    /// the server knows as soon as one of its instances has registered again. For those who do something costly with each
    /// list, or for whom one that is there and not listed is worse than one that is listed and not there.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let backends = discovery.resolver("product").keep_missing().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_missing(mut self) -> Self {
        self.keep_missing = true;
        self
    }

    /// How [`Resolver::pick`] chooses. By default [`Policy::Weighted`]: in turn and by weight.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Takes only instances that a query matches, of those that are resolved: by version, tag, zone, metadata or
    /// [subset](Query::subset). It names no service. Lists, picks and [endpoints](Resolver::endpoints) are of these alone.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::Query;
    ///
    /// let new = discovery.resolver("product").select(Query::default().version("2").meta("shelf", "3")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn select(mut self, select: Query) -> Self {
        self.query = self.query.and_then(|query| {
            select.validate()?;
            if !select.services.is_empty() && select.services != query.services {
                let rule = "the service is named by the resolver; a selection names none, or the same";
                return Err(Invalid::new("services", rule).into());
            }
            let both = query.meta.iter().fold(select, |both, (key, value)| both.meta(key, value));
            Ok(Query {
                services: query.services,
                scope: query.scope,
                tags: [query.tags, both.tags].concat(),
                zone: both.zone.or(query.zone),
                version: both.version.or(query.version),
                subset: both.subset.or(query.subset),
                ..both
            })
        });
        self
    }

    /// Prefers instances in this zone, as far as they are well: all picks are of this zone while three in four of them are,
    /// seven in ten while half of them are, and none when none is. The rest are of the other zones. An instance that has just
    /// come counts by the share of the calls that it has yet ([`CircuitBreaker::slow_start`](crate::CircuitBreaker::slow_start)).
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let products = discovery.resolver("product").prefer_zone("eu-1a").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefer_zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.nearness.zone = Some(zone.into());
        self
    }

    /// Picks only instances whose address is on this host, and none when there are none: for a companion that runs
    /// beside each copy of a program. An IP address or a name, written as the instances register it.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let beside_us = discovery.resolver("agent").same_host("10.0.0.8").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn same_host(mut self, host: &str) -> Self {
        match host.parse::<Host>() {
            Ok(host) => self.nearness.host = Some(host),
            Err(invalid) => self.query = self.query.and(Err(invalid.into())),
        }
        self
    }

    /// Uses only so many of the instances, chosen by the servers so that all instances have about as many callers: for services
    /// of very many instances with very many callers, who would otherwise all keep connections to, and hear of, each other.
    /// Twenty is a good number. When one of them goes, another one takes its place, and the rest stays.
    ///
    /// The servers know this process by the id of the first instance that it registered, or else by the host's name and a random
    /// number; see [`Resolve::subset_as`]. A server whose release knows no subsets tells of all instances, which are used
    /// then, with one warning in the log.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let some = discovery.resolver("product").subset(20).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subset(mut self, size: u32) -> Self {
        self.share = Some(Share::new(None, size));
        self
    }

    /// The same under a name of one's own: another one for each process, and the same after its restart, so that it gets
    /// the same instances. At most 64 printable ASCII characters without spaces.
    pub fn subset_as(mut self, client: impl Into<Box<str>>, size: u32) -> Self {
        self.share = Some(Share::new(Some(client.into()), size));
        self
    }

    /// Does not wait at all: the list is empty until a server has answered. For programs that may start before their
    /// discovery server; [`Resolver::wait_for_first`] waits later.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or a query that breaks a rule, and outside a Tokio runtime; [`Error::Closed`].
    pub fn in_background(self) -> Result<Resolver, Error> {
        inside_runtime()?;
        let mut query = self.query?;
        if let Some(share) = &self.share {
            query.subset = Some(share.subset(&self.discovery.inner)?);
        }
        if query.scope != Scope::Available {
            let rule = "a resolver knows what is handed out; use a watch for instances in other statuses";
            return Err(Invalid::new("scope", rule).into());
        }
        let inner = &self.discovery.inner;
        if inner.stop.is_cancelled() {
            return Err(Error::Closed);
        }
        let feed = inner.cache.subscribe(Query { history: false, ..query }, self.keep_missing);
        inner.cache.start(&feed, &inner.link, &inner.stop, &inner.tasks);
        let balancer = Arc::new(Balancer::new(self.policy, self.nearness, Arc::clone(&inner.peers), &feed.current()));
        Ok(Resolver { feed, balancer, discovery: self.discovery })
    }

    async fn resolve(self) -> Result<Resolver, Error> {
        let (timeout, even_if_unknown) = (self.timeout, self.even_if_unknown);
        let deadline = Instant::now() + timeout;
        let resolver = self.in_background()?;
        let Ok(snapshot) = timeout_at(deadline, resolver.wait_until(|snapshot| snapshot.is_known())).await else {
            return Err(late(&resolver.discovery, timeout));
        };
        let snapshot = snapshot?;
        if !even_if_unknown {
            for service in &resolver.query().services {
                if !snapshot.instances().iter().any(|instance| instance.name == *service) {
                    known(&resolver.discovery, service, deadline).await?;
                }
            }
        }
        Ok(resolver)
    }
}

impl IntoFuture for Resolve {
    type Output = Result<Resolver, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.resolve())
    }
}

impl fmt::Debug for Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolve").field("query", &self.query).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Whether the service exists at all: nobody may be passing at the moment, and that is no reason to refuse.
pub(crate) async fn known(discovery: &Discovery, service: &ServiceName, deadline: Instant) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    let got = discovery.call(left, |connection, context| {
        let service = service.clone();
        async move { connection.client.get(context, service).await }
    });
    match got.await {
        Ok(_) | Err(Error::Discovery(DiscoveryError::NonePassing { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Why there is no list after all this time.
pub(crate) fn late(discovery: &Discovery, after: Duration) -> Error {
    match &*discovery.inner.link.borrow() {
        Link::Up(connection) => Error::Deadline { server: Arc::clone(&connection.server), after },
        Link::Away { tried, .. } => Error::away(tried.clone()),
        Link::Closed => Error::Closed,
    }
}
