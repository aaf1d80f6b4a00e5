//! An instance that stays registered for as long as its handle lives.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use roundsman_protocol::{InstanceId, ServiceName};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{discovery::Discovery, error::Error, keeper::Keeper};

/// An instance that stays registered.
///
/// In the background the server is asked every few seconds whether it still knows the instance. When it does
/// not (it restarted without a store, or evicted the instance while the network was away), and whenever the
/// connection was made anew, the instance registers again under the same id, with growing, jittered pauses. An instance
/// with a ttl check is renewed three times per ttl.
///
/// End it with [`Registration::close`], which deregisters. Dropping it only stops the background task: the instance
/// stays registered until the server's visits find it gone, so that nothing has to wait in a destructor.
#[derive(Debug)]
pub struct Registration {
    id: InstanceId,
    name: ServiceName,
    discovery: Discovery,
    state: watch::Receiver<RegistrationState>,
    draining: Arc<AtomicBool>,
    /// Stops the task, also by being dropped.
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// How a registration stands, as far as its own process knows.
#[derive(Clone, Debug)]
pub enum RegistrationState {
    /// Not registered yet; only after [`Discovery::register_in_background`].
    Pending,
    /// The server said so, last time it was asked.
    Registered,
    /// Nobody confirms it at the moment: the server is away, no longer knows the instance, or does not take it.
    /// Registering again goes on.
    Lost {
        /// Since when.
        since: Instant,
        /// Why, the latest reason.
        error: Error,
    },
}

// === impl Registration ===

impl Registration {
    /// Starts keeping `registration`, which has an id and may be registered already, on the connection of this number.
    pub(crate) fn keep(
        discovery: &Discovery,
        registration: roundsman_protocol::Registration,
        registered_on: Option<u64>,
    ) -> Self {
        let name = registration.name.clone();
        let id = registration.id.clone().unwrap_or_else(|| InstanceId::random(&name));
        let first = registered_on.map_or(RegistrationState::Pending, |_| RegistrationState::Registered);
        let (states, state) = watch::channel(first);
        let draining = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let keeper = Keeper::new(discovery, registration, id.clone(), registered_on, states, Arc::clone(&draining));
        let task = discovery.inner.keepers.spawn(keeper.run(stop.clone()));
        Self { id, name, discovery: discovery.clone(), state, draining, stop: stop.drop_guard(), task }
    }

    /// The instance's id.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// How the registration stands, to be read or waited for.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Returns when the instance is registered; at once if it is. After [`Discovery::close`] it never returns.
    pub async fn registered(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| matches!(state, RegistrationState::Registered)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Stops (`on`) or resumes being handed out. The instance stays registered and goes on being visited.
    /// The wish outlasts an error and a restart of the server: it is repeated whenever the instance registers again.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn drain(&self, on: bool) -> Result<(), Error> {
        self.draining.store(on, Ordering::Relaxed);
        self.discovery.drain(&self.id, on).await
    }

    /// Deregisters and stops keeping the instance.
    ///
    /// # Errors
    /// Those of every call, within its deadline; the instance is then left to the server's visits. That the
    /// server does not know it any more is no error.
    pub async fn close(self) -> Result<(), Error> {
        // The task first: it must not register again what is about to leave.
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!(id = %self.id, "the task that keeps a registration failed");
        }
        match self.discovery.deregister(&self.id).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }
}

// === impl RegistrationState ===

impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("not registered yet"),
            Self::Registered => f.write_str("registered"),
            Self::Lost { error, .. } => write!(f, "registering again: {error}"),
        }
    }
}
