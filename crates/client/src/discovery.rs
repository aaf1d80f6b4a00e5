//! The handle that everything begins with.

mod asking;
mod following;
mod registering;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use roundsman_protocol::DiscoveryError;
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
    registration::{Kept, Registration},
    reports::Reports,
    servers::Servers,
    share::ClientName,
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
/// [`Watch`](crate::Watch) were dropped.
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
    /// As whom subsets are asked for.
    pub(crate) name: ClientName,
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

    pub(crate) fn assemble(
        link: watch::Receiver<Link>,
        stop: CancellationToken,
        tasks: TaskTracker,
        settings: Settings,
        rules: CircuitBreaker,
        notice: Duration,
    ) -> Self {
        let timeout = settings.timeout;
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
            name: ClientName::default(),
            cache,
            peers,
            #[cfg(feature = "http")]
            calls: crate::http::Calls::default(),
            tasks,
            stop,
        };
        Self { inner: Arc::new(inner) }
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
