//! The handle that everything begins with.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{
    DiscoveryError, Graph, Instance, InstanceId, Query, ServiceName, ServiceSummary, Status, Trouble, handshake::Hello,
    instance::Registered,
};
use tarpc::{client::RpcError, context::Context};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    balance::Peers,
    breaker::CircuitBreaker,
    builder::Builder,
    cache::{Cache, Settings},
    call::call,
    error::Error,
    link::{Connection, Link},
    new_instance::NewInstance,
    registration::{Kept, Registration},
    reports::Reports,
    resolver::Resolve,
    servers::Servers,
    supervisor::Supervisor,
    watch::Watch,
};

/// A connection to the discovery servers that mends itself. Cheap to clone; clones share the connection.
///
/// When the connection breaks, it is made again in the background, with growing, jittered pauses, to each
/// server in turn. A call that meets a broken connection waits for the next one and is sent again, within its
/// deadline; all calls are safe to repeat. When no server can be reached in time it fails with
/// [`Error::Unreachable`], which names every address and what came of it.
///
/// All calls are cancel safe: dropping the future abandons the call, which may or may not have happened.
///
/// The background task ends with [`Discovery::close`], or soon after the last clone, [`Registration`] and
/// [`Watch`] were dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), roundsman::Error> {
/// use roundsman::{Discovery, NewInstance};
///
/// let discovery = Discovery::connect("127.0.0.1:5555").await?;
/// let registration = discovery.register(NewInstance::new("order", "10.0.0.8:6060")?).await?;
/// let product = discovery.get("product").await?;
/// println!("buying from {}", product.address);
/// registration.close().await?;
/// discovery.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) timeout: Duration,
    pub(crate) link: watch::Receiver<Link>,
    /// Tells the registrations to leave.
    pub(crate) closing: CancellationToken,
    /// The tasks of registrations.
    pub(crate) keepers: TaskTracker,
    /// The registrations that somebody holds.
    registrations: Mutex<Vec<Weak<Kept>>>,
    /// How long callers are given to notice that an instance drains.
    pub(crate) notice: Duration,
    /// What the resolvers share.
    pub(crate) cache: Arc<Cache>,
    /// What our calls tell about each instance.
    pub(crate) peers: Arc<Peers>,
    /// What calls over HTTP share.
    #[cfg(feature = "http")]
    pub(crate) calls: crate::http::Calls,
    /// The tasks of connection and cache.
    pub(crate) tasks: TaskTracker,
    /// Ends them.
    pub(crate) stop: CancellationToken,
}

// === impl Discovery ===

impl Discovery {
    /// Connects to the first of `servers` that lets us in, in the namespace `default`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// let discovery = roundsman::Discovery::connect("10.0.0.1:5555,10.0.0.2:5555").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Refused`] when each server was tried once without success, and
    /// [`Error::Invalid`] for an address that is none. A program that may start before its discovery server
    /// uses [`Builder::connect_lazy`].
    pub async fn connect(servers: impl Into<Servers>) -> Result<Self, Error> {
        Self::builder().servers(servers).connect().await
    }

    /// For more than an address: namespace, deadline, codec.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// let discovery = roundsman::Discovery::builder().servers("10.0.0.1:5555").namespace("shop").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(
        servers: Vec<Arc<str>>,
        hello: Hello,
        settings: Settings,
        rules: CircuitBreaker,
        notice: Duration,
    ) -> Self {
        let (timeout, stop) = (settings.timeout, CancellationToken::new());
        let (task, link) = Supervisor::new(servers, hello, timeout, stop.clone());
        let tasks = TaskTracker::new();
        tasks.spawn(task.run());
        let (closing, keepers) = (CancellationToken::new(), TaskTracker::new());
        let peers = Arc::new(Peers::new(rules, Reports::new(link.clone(), stop.clone(), tasks.clone())));
        let cache = Arc::new(Cache::new(settings));
        let registrations = Mutex::default();
        let inner = Inner {
            timeout,
            link,
            closing,
            keepers,
            registrations,
            notice,
            cache,
            peers,
            #[cfg(feature = "http")]
            calls: crate::http::Calls::default(),
            tasks,
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Registers an instance, and keeps it registered for as long as the [`Registration`] lives.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::NewInstance;
    ///
    /// let me = discovery.register(NewInstance::new("order", "10.0.0.8:6060")?.version("1.0.0")).await?;
    /// println!("registered as {}", me.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule, and every other error of a call: nothing goes on in
    /// the background then, and the caller decides. See [`Discovery::register_in_background`] for the other way.
    pub async fn register(&self, instance: NewInstance) -> Result<Registration, Error> {
        let registration = instance.into_registration()?;
        let (registered, generation) = self.register_on(&registration).await;
        registered?;
        Ok(Registration::keep(self, registration, generation))
    }

    /// Registers an instance as soon as a server can be reached, and keeps it registered.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// # use roundsman::{Discovery, NewInstance};
    /// let discovery = Discovery::builder().servers("127.0.0.1:5555").connect_lazy()?;
    /// let mut registration = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?)?;
    /// // … serve …
    /// registration.registered().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_in_background(&self, instance: NewInstance) -> Result<Registration, Error> {
        Ok(Registration::keep(self, instance.into_registration()?, None))
    }

    /// Registers an instance and leaves it at that: nobody keeps it registered, nobody takes it out but its
    /// failing checks or [`Discovery::deregister`]. For tools that register other programs.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::{Check, NewInstance};
    ///
    /// let database = NewInstance::new("database", "10.0.0.9:5432")?.check(Check::none()).into_registration()?;
    /// let registered = discovery.register_once(&database).await?;
    /// println!("{}", registered.id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the instance breaks a rule, and every other error of a call.
    pub async fn register_once(&self, registration: &roundsman_protocol::Registration) -> Result<Registered, Error> {
        registration.validate()?;
        // The id is made up here and not by the server, so that a registration sent again makes no second instance.
        let mut registration = registration.clone();
        registration.id.get_or_insert_with(|| InstanceId::random(&registration.name));
        self.register_on(&registration).await.0
    }

    /// Registers, and tells on which connection this was tried last.
    pub(crate) async fn register_on(
        &self,
        registration: &roundsman_protocol::Registration,
    ) -> (Result<Registered, Error>, Option<u64>) {
        let generation = AtomicU64::new(0);
        let sent = self.call(self.inner.timeout, |connection, context| {
            generation.store(connection.generation, Ordering::Relaxed);
            let registration = registration.clone();
            async move { connection.client.register(context, registration).await }
        });
        let result = sent.await;
        let generation = generation.into_inner();
        (result, (generation > 0).then_some(generation))
    }

    /// Takes an instance out for good.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// discovery.deregister(&"database-1".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id.
    pub async fn deregister(&self, id: &InstanceId) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.deregister(context, id).await }
        })
        .await
    }

    /// "This instance is alive." [`Registration`] does this by itself; for those who keep an instance with a
    /// ttl check alive in their own way.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// discovery.renew(&"night-job-1".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when the server does not know it,
    /// or evicted it: register again.
    pub async fn renew(&self, id: &InstanceId) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.renew(context, id).await }
        })
        .await
    }

    /// Stops (`on`) or resumes handing an instance out. It stays registered.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let id = "product-1".parse()?;
    /// discovery.drain(&id, true).await?;
    /// // … no new calls come; what has to be done to it is done …
    /// discovery.drain(&id, false).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`](crate::DiscoveryError::NotRegistered) when there is none of this id.
    pub async fn drain(&self, id: &InstanceId, on: bool) -> Result<(), Error> {
        self.call(self.inner.timeout, |connection, context| {
            let id = id.clone();
            async move { connection.client.drain(context, id, on).await }
        })
        .await
    }

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
            async move { connection.client.list(context, query).await }
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

    /// Returns when a server is connected; at once if one is.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), roundsman::Error> {
    /// let discovery = roundsman::Discovery::builder().connect_lazy()?;
    /// discovery.connected().await?;
    /// println!("there is a server");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn connected(&self) -> Result<(), Error> {
        let mut link = self.inner.link.clone();
        match link.wait_for(|link| !matches!(link, Link::Away { .. })).await.as_deref() {
            Ok(Link::Up(_)) => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// Returns when no server is connected, with the reason; at once if none is.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// loop {
    ///     discovery.connected().await?;
    ///     println!("lost it: {}", discovery.disconnected().await);
    /// }
    /// # }
    /// ```
    pub async fn disconnected(&self) -> Error {
        let mut link = self.inner.link.clone();
        match link.wait_for(|link| !matches!(link, Link::Up(_))).await.as_deref() {
            Ok(Link::Away { tried, .. }) => Error::away(tried.clone()),
            _ => Error::Closed,
        }
    }

    /// Deregisters what this client registered and still keeps, closes the connection and ends every task of the
    /// library. Calls still under way, on any clone, fail with [`Error::Closed`].
    ///
    /// Takes as long as a call may take, when the server is away; what could not be deregistered will be evicted.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// // At the very end of a program, when nothing is left to be asked.
    /// discovery.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.keepers.close();
        self.inner.keepers.wait().await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        #[cfg(feature = "http")]
        self.inner.calls.clear();
    }

    /// Why something that waited for a server did not come to its end in time.
    pub(crate) fn late(&self) -> Error {
        match &*self.inner.link.borrow() {
            Link::Up(connection) => {
                Error::Deadline { server: Arc::clone(&connection.server), after: self.inner.timeout }
            }
            Link::Away { tried, .. } => Error::away(tried.clone()),
            Link::Closed => Error::Closed,
        }
    }

    /// Sends a call, again on each new connection, until it is answered or `timeout` has passed.
    pub(crate) async fn call<T, F, R>(&self, timeout: Duration, send: F) -> Result<T, Error>
    where
        F: Fn(Arc<Connection>, Context) -> R,
        R: Future<Output = Result<Result<T, DiscoveryError>, RpcError>>,
    {
        call(&self.inner.link, timeout, send).await
    }
}

// === impl Inner ===

impl Inner {
    /// Notes a registration, for those who want all of them.
    pub(crate) fn remember(&self, kept: &Arc<Kept>) {
        let mut registrations = self.lock();
        registrations.retain(|known| known.strong_count() > 0);
        registrations.push(Arc::downgrade(kept));
    }

    /// The registrations that somebody holds.
    pub(crate) fn registrations(&self) -> Vec<Registration> {
        self.lock().iter().filter_map(Weak::upgrade).map(Registration::of).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Kept>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
