//! An instance that stays registered for as long as its handle lives.

use std::{fmt, sync::Arc};

use roundsman_protocol::{InstanceId, ServiceName};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::Discovery,
    error::Error,
    keeper::Keeper,
    new_instance::NewInstance,
    wish::{Tried, Wish, Wishes},
};

/// An instance that stays registered. Cheap to clone; clones are handles of the same one.
///
/// In the background the server is asked every few seconds whether it still knows the instance. When it does
/// not (it restarted without a store, or evicted the instance while the network was away), and whenever the
/// connection was made anew, the instance registers again under the same id, with growing, jittered pauses. An instance
/// with a ttl check is renewed three times per ttl.
///
/// It takes its address from nobody who registered there later: then it is [`RegistrationState::Replaced`], and asks again now
/// and then whether the other is gone. The same where an operator keeps its id out
/// ([`DiscoveryError::Blocked`](crate::DiscoveryError::Blocked)).
///
/// What its owner wants is kept here, too, and repeated whenever that is needed: [`Registration::draining`] and
/// [`Registration::update`] outlast an error, and a server that restarts without memory. They may be called from many
/// tasks at once; what they ask for reaches the server in order.
///
/// End it with [`Registration::graceful`] or [`Registration::close`], which deregister. Dropping the last handle only
/// stops the background task: the instance stays registered until the server's visits find it gone, so that nothing has
/// to wait in a destructor.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use roundsman::NewInstance;
///
/// let me = discovery.register(NewInstance::new("order", "10.0.0.8:6060")?).await?;
/// me.draining().await?;
/// // … something that callers should not wait for …
/// me.passing().await?;
/// me.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an instance is kept registered only while its registration is held"]
pub struct Registration {
    kept: Arc<Kept>,
}

/// What the handles of one registration share.
#[derive(Debug)]
pub(crate) struct Kept {
    id: InstanceId,
    name: ServiceName,
    discovery: Discovery,
    state: watch::Receiver<RegistrationState>,
    wishes: Wishes,
    tried: watch::Receiver<Tried>,
    /// Stops the task.
    stop: CancellationToken,
    /// The task has ended, in whatever way.
    ended: CancellationToken,
    /// The instance has left: its owner said so, and did not merely let go of it.
    left: CancellationToken,
}

/// How a registration stands, as far as its own process knows.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use roundsman::{NewInstance, RegistrationState};
///
/// let me = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?)?;
/// let mut state = me.state();
/// while state.changed().await.is_ok() {
///     if let RegistrationState::Lost { error, .. } = &*state.borrow_and_update() {
///         println!("nobody finds us: {error}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
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
    /// Another instance registered at the same address, later than this one, and has it since. This one leaves it alone, and
    /// registers again only once the other is gone. Two processes that say they are at one address: one of them is wrong.
    Replaced {
        /// Since when.
        since: Instant,
        /// The other one.
        by: InstanceId,
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
        let begun = CancellationToken::new();
        begun.cancel();
        Self::keep_from(begun, discovery, registration, registered_on)
    }

    /// The same, beginning only when `begin` is cancelled.
    pub(crate) fn keep_from(
        begin: CancellationToken,
        discovery: &Discovery,
        registration: roundsman_protocol::Registration,
        registered_on: Option<u64>,
    ) -> Self {
        let name = registration.name.clone();
        let id = registration.id.clone().unwrap_or_else(|| InstanceId::random(&name));
        let first = registered_on.map_or(RegistrationState::Pending, |_| RegistrationState::Registered);
        let (states, state) = watch::channel(first);
        let wishes = Wishes::new(registration);
        let (tries, tried) = watch::channel(Tried::default());
        let [stop, ended, left] = [(); 3].map(|()| CancellationToken::new());
        let keeper = Keeper::new(discovery, id.clone(), registered_on, wishes.subscribe(), tries, states);
        let (stopped, end, leaves) = (stop.clone(), ended.clone().drop_guard(), left.clone());
        discovery.inner.keepers.spawn(async move {
            let _end = end;
            if keeper.run(begin, stopped).await {
                leaves.cancel();
            }
        });
        let kept = Arc::new(Kept { id, name, discovery: discovery.clone(), state, wishes, tried, stop, ended, left });
        discovery.inner.remember(&kept);
        Self { kept }
    }

    pub(crate) fn of(kept: Arc<Kept>) -> Self {
        Self { kept }
    }

    /// The instance's id.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.kept.id
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.kept.name
    }

    /// How the registration stands, to be read or waited for.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.kept.state.clone()
    }

    /// Returns when the instance is registered; at once if it is. After [`Discovery::close`] it never returns.
    pub async fn registered(&self) {
        let mut state = self.kept.state.clone();
        if state.wait_for(|state| matches!(state, RegistrationState::Registered)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Changes what the instance says of itself: metadata, tags, zone, version, weight. In place: the same id and
    /// address, the same health and history, no moment out of the lists; watchers see one change.
    ///
    /// Changes made from several tasks at once are carried out one after the other, each on top of the one before.
    /// `change` is called once, at once. It may look at this registration; it must not block, for other changes wait for it.
    ///
    /// When this fails because no server answered in time, the change is not lost: it is told to the server as soon as
    /// that is possible, and [`Error::is_retryable`] says so. Calling again is safe, and not needed. Dropping the
    /// future gives up the waiting, not the change.
    ///
    /// ```no_run
    /// # async fn example(registration: roundsman::Registration) -> Result<(), roundsman::Error> {
    /// registration.update(|instance| instance.meta("load", "0.7").weight(2).without_tag("warming-up")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the new data break a rule, or change the name, the id, the address or the check: nothing
    /// is changed then. Otherwise those of every call, and [`Error::Closed`] after the end.
    pub async fn update(&self, change: impl FnOnce(NewInstance) -> NewInstance) -> Result<(), Error> {
        let version = self.kept.wishes.update(change)?;
        self.arrived(version).await
    }

    /// Asks to be passed over from now on: the instance stays registered and goes on being visited, but is not handed
    /// out. The wish outlasts an error and a restart of the server: it is repeated whenever the instance registers again.
    ///
    /// To leave for good, [`Registration::graceful`] does this and what must come after it.
    ///
    /// # Errors
    /// Those of every call, and [`Error::Closed`] after the end.
    pub async fn draining(&self) -> Result<(), Error> {
        self.drain(true).await
    }

    /// Asks to be handed out, again: the end of [`Registration::draining`]. A drain that an operator asked for holds until an
    /// operator takes it back (`roundsman drain ID --undo`), whatever the instance itself asks for. Whether the instance is passing is still for its check to say.
    ///
    /// # Errors
    /// Those of every call, and [`Error::Closed`] after the end.
    pub async fn passing(&self) -> Result<(), Error> {
        self.drain(false).await
    }

    /// [`Registration::draining`] (`on`) or [`Registration::passing`], for those who have it in a variable.
    ///
    /// # Errors
    /// Those of every call, and [`Error::Closed`] after the end.
    pub async fn drain(&self, on: bool) -> Result<(), Error> {
        self.arrived(self.kept.wishes.drain(on)).await
    }

    /// Whether its owner asked to be passed over.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.kept.wishes.is_draining()
    }

    /// Deregisters and stops keeping the instance, for all handles.
    ///
    /// # Errors
    /// Those of every call, within its deadline; the instance is then left to the server's visits. That the
    /// server does not know it any more is no error.
    pub async fn close(self) -> Result<(), Error> {
        // The task first: it must not register again what is about to leave.
        self.stop().await;
        match self.kept.discovery.deregister(&self.kept.id).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Stops keeping the instance, and leaves it to the server's visits.
    pub(crate) async fn stop(&self) {
        self.kept.stop.cancel();
        self.kept.ended.cancelled().await;
        self.kept.left.cancel();
    }

    pub(crate) fn discovery(&self) -> &Discovery {
        &self.kept.discovery
    }

    /// What its owner wants, to be looked at by others.
    pub(crate) fn wishes(&self) -> watch::Receiver<Wish> {
        self.kept.wishes.subscribe()
    }

    /// Cancelled when the instance has left, for good.
    pub(crate) fn left(&self) -> &CancellationToken {
        &self.kept.left
    }

    /// Waits until the server was told this version of the wish.
    async fn arrived(&self, version: u64) -> Result<(), Error> {
        let (mut tried, discovery) = (self.kept.tried.clone(), &self.kept.discovery);
        match timeout(discovery.inner.timeout, tried.wait_for(|tried| tried.version >= version)).await {
            Ok(Ok(tried)) => tried.error.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(discovery.late()),
        }
    }
}

// === impl Kept ===

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl RegistrationState ===

impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("not registered yet"),
            Self::Registered => f.write_str("registered"),
            Self::Lost { error, .. } => write!(f, "registering again: {error}"),
            Self::Replaced { by, .. } => write!(f, "replaced by {by} at the same address"),
        }
    }
}
