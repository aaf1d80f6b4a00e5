//! A small server for tests, in the test's own process.
//!
//! It speaks the protocol on a real socket, in every version and both codecs, with any number of namespaces, and keeps
//! everything in memory: registrations, renewals, drains, lookups, lists, watches, subsets and reports. So a program under test,
//! or a process that the test starts, uses it by its address as it would a real one.
//!
//! It visits nobody. Whoever registers is passing until it deregisters, or until the test [says otherwise](Server::set_status).
//! What only a real server has is refused: status, graph and history. For a client alone, without any socket, there is
//! [`Discovery::fixed`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use roundsman::{Discovery, InstanceStatus, NewInstance, testing::Server};
//!
//! let server = Server::start().await?;
//! server.register(("product", "127.0.0.1:7070"))?;
//!
//! // The program under test, which is told server.addr() by flag or environment:
//! let program = Discovery::connect(server.addr()).await?;
//! assert_eq!(program.get("product").await?.address.to_string(), "127.0.0.1:7070");
//! let me = program.register(NewInstance::new("order", "127.0.0.1:6060")?.version("1.2.0")).await?;
//!
//! // What it did, and what it does when somebody dies.
//! assert!(server.instances().iter().any(|instance| instance.version.as_deref() == Some("1.2.0")));
//! let product = program.get("product").await?;
//! server.set_status(&product.id, InstanceStatus::Evicted, "GET /health: connection refused")?;
//! assert!(program.get("product").await.is_err());
//!
//! me.close().await?;
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod connection;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use roundsman_protocol::{Clock, Instance, InstanceId, InstanceStatus, Namespace, Trouble};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    discovery::Discovery,
    error::Error,
    memory::{Memory, Shared},
    new_instance::NewInstance,
};

/// The pause after a connection could not be accepted: descriptors may be short for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A server for tests. See the [module](self). Dropped, it ends as well, if a moment later.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Server {
    addr: SocketAddr,
    tenants: Arc<Tenants>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The registries, by namespace.
#[derive(Debug, Default)]
struct Tenants(Mutex<BTreeMap<Namespace, Shared>>);

// === impl Server ===

impl Server {
    /// A server on a free port of 127.0.0.1, that knows nobody.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same at this address: that of an earlier one, to be a server that comes back with nothing in its memory.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let (addr, tenants) = (listener.local_addr()?, Arc::<Tenants>::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let accepting = accept(listener, Arc::clone(&tenants), stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(Self { addr, tenants, stop, tasks })
    }

    /// Where it listens: what programs are given as `ROUNDSMAN_SERVER`.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A client of it.
    ///
    /// # Errors
    /// Those of [`Discovery::connect`].
    pub async fn connect(&self) -> Result<Discovery, Error> {
        Discovery::connect(self.addr).await
    }

    /// Registers an instance of somebody who is not there: a [`NewInstance`], or a name with an address. In the namespace
    /// `default`, as with all that follows.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it breaks a rule.
    pub fn register<I>(&self, instance: I) -> Result<InstanceId, Error>
    where
        I: TryInto<NewInstance>,
        Error: From<I::Error>,
    {
        let registration = instance.try_into()?.into_registration()?;
        Ok(self.default_tenant().register(registration)?.id)
    }

    /// Takes an instance out for good.
    ///
    /// # Errors
    /// [`Error::is_not_found`].
    pub fn deregister(&self, id: &InstanceId) -> Result<(), Error> {
        Ok(self.default_tenant().change(|records| records.remove(id, "deregistered"))?)
    }

    /// Shows an instance in this status, as a visit would have it. One that is evicted is told so when it renews, and registers
    /// again.
    ///
    /// # Errors
    /// [`Error::is_not_found`].
    pub fn set_status(&self, id: &InstanceId, status: InstanceStatus, reason: &str) -> Result<(), Error> {
        let now = Clock::system().now();
        Ok(self.default_tenant().change(|records| records.set_status(id, status, reason, now))?)
    }

    /// Everybody, in whatever status, sorted by service and id.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.default_tenant().lock().all()
    }

    /// What clients have [reported](Discovery::report), the earliest first; the last 1,000.
    #[must_use]
    pub fn reports(&self) -> Vec<(InstanceId, Trouble)> {
        self.default_tenant().lock().reports()
    }

    /// Ends it, with all connections.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn default_tenant(&self) -> Shared {
        self.tenants.of(&Namespace::default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl Tenants ===

impl Tenants {
    /// The registry of this namespace; a new one if nobody has asked for it before.
    fn of(&self, namespace: &Namespace) -> Shared {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Shared::new(Memory::new(namespace.clone()));
        Shared::clone(tenants.entry(namespace.clone()).or_insert_with(new))
    }
}

/// Lets everybody in.
async fn accept(listener: TcpListener, tenants: Arc<Tenants>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection::serve(stream, Arc::clone(&tenants));
                tasks.spawn(stop.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
