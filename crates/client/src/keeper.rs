//! The task behind a [`Registration`](crate::Registration): asks, renews, registers again.

use std::time::Duration;

use roundsman_protocol::{DiscoveryError, InstanceId, Registration, instance::Outcome};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{Backoff, jittered},
    discovery::Discovery,
    error::Error,
    link::Link,
    registration::RegistrationState,
    wish::{Tried, Wish},
};

/// How often the server is asked whether it still knows the instance.
const RENEWAL: Duration = Duration::from_secs(5);
/// First and longest pause before the instance registers again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Registered for so long, the pauses start over. An instance that is evicted again and again registers
/// ever more slowly, so that it does not outrun the server's probation.
const SETTLED: Duration = Duration::from_secs(60);

/// How often an instance asks again that another one has replaced, or that an operator keeps out.
const OUT: Duration = Duration::from_secs(30);

/// What the task does next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// Registers, not before this moment unless a new connection comes up.
    Register { at: Instant },
    /// Asks at this moment, or registers when a new connection comes up.
    Renew { at: Instant },
}

/// The one task that tells the server about an instance, so that what its owner wants arrives in order.
#[derive(Debug)]
pub(crate) struct Keeper {
    discovery: Discovery,
    id: InstanceId,
    wish: watch::Receiver<Wish>,
    /// The versions of the wish that the server was told: the data, and whether to hand the instance out.
    told: (u64, u64),
    tried: watch::Sender<Tried>,
    state: watch::Sender<RegistrationState>,
    link: watch::Receiver<Link>,
    /// The connection on which the instance was registered last.
    generation: Option<u64>,
    /// Whether it was registered before: then it takes the address from nobody.
    again: bool,
    backoff: Backoff,
    registered_at: Instant,
    next: Next,
}

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(
        discovery: &Discovery,
        id: InstanceId,
        generation: Option<u64>,
        wish: watch::Receiver<Wish>,
        tried: watch::Sender<Tried>,
        state: watch::Sender<RegistrationState>,
    ) -> Self {
        let now = Instant::now();
        let at = now + jittered(renewal(&wish.borrow().registration));
        Self {
            discovery: discovery.clone(),
            next: generation.map_or(Next::Register { at: now }, |_| Next::Renew { at }),
            id,
            wish,
            told: (0, 0),
            tried,
            state,
            link: discovery.inner.link.clone(),
            generation,
            again: generation.is_some(),
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            registered_at: now,
        }
    }

    /// Keeps the instance from `begin` until `stop`, or, when the client is closed, deregisters it. Whether it did.
    pub(crate) async fn run(mut self, begin: CancellationToken, stop: CancellationToken) -> bool {
        let closing = self.discovery.inner.closing.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = closing.cancelled() => {
                if begin.is_cancelled()
                    && let Err(error) = self.discovery.deregister(&self.id).await
                    && !error.is_not_found()
                {
                    tracing::warn!(id = %self.id, %error, "could not deregister; the server's visits will notice");
                }
                true
            }
            () = async {
                begin.cancelled().await;
                self.keep().await;
            } => false,
        }
    }

    async fn keep(&mut self) {
        loop {
            match self.next {
                Next::Register { at } => {
                    if Instant::now() < at {
                        self.wait_to_register(at).await;
                    }
                    self.register().await;
                }
                Next::Renew { at } => match self.pause_until(at).await {
                    Woken::Reconnected => self.register().await,
                    Woken::Away(error) => self.lost(error),
                    Woken::Time => self.renew().await,
                    Woken::Wish => self.follow().await,
                },
            }
        }
    }

    /// Waits for a moment, or until there is a reason to try earlier. For one that is out there is none: whoever replaced it
    /// may register on the new connection, too, and is to be there first.
    async fn wait_to_register(&mut self, at: Instant) {
        loop {
            let woken = self.pause_until(at).await;
            let Some(error) = self.is_out() else { return };
            match woken {
                Woken::Time => return,
                Woken::Wish => {
                    let wish = self.wish.borrow_and_update().clone();
                    self.note(&wish, Some(&error));
                }
                Woken::Reconnected => {
                    if let Link::Up(connection) = &*self.link.borrow() {
                        self.generation = Some(connection.generation);
                    }
                }
                // It is known, and waited for where it is asked next.
                Woken::Away(_) => {}
            }
        }
    }

    /// Why the instance is out, if that is for others to end.
    fn is_out(&self) -> Option<Error> {
        match &*self.state.borrow() {
            RegistrationState::Replaced { by, .. } => {
                Some(DiscoveryError::Replaced { id: self.id.clone(), by: by.clone() }.into())
            }
            RegistrationState::Lost { error, .. } if is_out(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Waits for a moment, for what happens to the connection, or for a new wish.
    async fn pause_until(&mut self, at: Instant) -> Woken {
        let known = self.generation;
        let lost = matches!(*self.state.borrow(), RegistrationState::Lost { .. } | RegistrationState::Replaced { .. });
        let news = |link: &Link| match link {
            Link::Up(connection) => Some(connection.generation) != known,
            // The first round after a break usually succeeds; nobody needs to hear of that.
            Link::Away { failed_rounds, .. } => !lost && *failed_rounds > 0,
            Link::Closed => false,
        };
        tokio::select! {
            biased;
            link = self.link.wait_for(news) => match link.as_deref() {
                Ok(Link::Away { tried, .. }) => return Woken::Away(Error::away(tried.clone())),
                Ok(_) => return Woken::Reconnected,
                Err(_) => {}
            },
            wished = self.wish.changed() => if wished.is_ok() {
                return Woken::Wish;
            },
            () = sleep_until(at) => return Woken::Time,
        }
        // The supervisor has ended, or the owner has gone, and with it every use of this task: wait to be stopped.
        std::future::pending().await
    }

    async fn register(&mut self) {
        let wish = self.wish.borrow_and_update().clone();
        let result = self.tell(&wish, true).await;
        self.note(&wish, result.as_ref().err());
        match result {
            Ok(()) => self.confirmed(),
            Err(error) => {
                let pause = if is_out(&error) { jittered(OUT) } else { self.backoff.next() };
                self.lost(error);
                self.next = Next::Register { at: Instant::now() + pause };
            }
        }
    }

    /// Tells a server that knows the instance what its owner wants by now.
    async fn follow(&mut self) {
        let wish = self.wish.borrow_and_update().clone();
        match self.tell(&wish, false).await {
            Ok(()) => self.note(&wish, None),
            Err(error) if error.is_not_found() => self.register().await,
            Err(error) if is_out(&error) => {
                self.note(&wish, Some(&error));
                self.lost(error);
                self.next = Next::Register { at: Instant::now() + jittered(OUT) };
            }
            Err(error) => {
                if self.tried.borrow().error.is_none() {
                    tracing::warn!(id = %self.id, %error, "could not tell discovery what changed; trying again");
                }
                self.note(&wish, Some(&error));
                // Renewals go on meanwhile, so that the instance does not go for want of them.
                let pause = self.backoff.next().min(renewal(&wish.registration));
                self.next = Next::Renew { at: Instant::now() + pause };
            }
        }
    }

    /// Tells the server what it does not know yet, or everything.
    async fn tell(&mut self, wish: &Wish, everything: bool) -> Result<(), Error> {
        let mut forgotten = false;
        if everything || wish.data > self.told.0 {
            let registration = Registration { again: self.again, ..Registration::clone(&wish.registration) };
            let (result, generation) = self.discovery.register_on(&registration).await;
            // After a failure, too: only another connection, or the pause, is a reason to try again.
            self.generation = generation;
            let registered = result?;
            self.again = true;
            for other in &registered.replaced {
                tracing::warn!(id = %self.id, replaced = %other, "another instance was registered at the same address, and is not any more");
            }
            forgotten = registered.outcome == Outcome::Created;
            self.told.0 = wish.data;
        }
        if everything {
            self.registered_at = Instant::now();
        }
        // A server that did not know the instance does not know either that it wants to be left alone.
        if wish.drain > self.told.1 || (wish.draining && (everything || forgotten)) {
            self.discovery.drain(&self.id, wish.draining).await?;
            self.told.1 = wish.drain;
        }
        Ok(())
    }

    /// Lets those know who wait for their wish to arrive.
    fn note(&self, wish: &Wish, error: Option<&Error>) {
        self.tried.send_replace(Tried { version: wish.version, error: error.cloned() });
    }

    async fn renew(&mut self) {
        match self.discovery.renew(&self.id).await {
            Ok(()) => {
                if self.registered_at.elapsed() > SETTLED {
                    self.backoff.reset();
                }
                self.confirmed();
                let behind = {
                    let wish = self.wish.borrow();
                    wish.data > self.told.0 || wish.drain > self.told.1
                };
                if behind {
                    self.follow().await;
                }
            }
            Err(error) => {
                let unknown = error.is_not_found();
                self.lost(error);
                self.next = if unknown {
                    Next::Register { at: Instant::now() + self.backoff.next() }
                } else {
                    Next::Renew { at: self.next_renewal() }
                };
            }
        }
    }

    fn next_renewal(&self) -> Instant {
        Instant::now() + jittered(renewal(&self.wish.borrow().registration))
    }

    fn confirmed(&mut self) {
        self.next = Next::Renew { at: self.next_renewal() };
        let news = self.state.send_if_modified(|state| {
            let news = !matches!(state, RegistrationState::Registered);
            *state = RegistrationState::Registered;
            news
        });
        if news {
            tracing::info!(id = %self.id, "registered");
        }
    }

    fn lost(&self, error: Error) {
        if let Error::Discovery(DiscoveryError::Replaced { by, .. }) = &error {
            return self.replaced(by);
        }
        let (since, known, was_registered) = match &*self.state.borrow() {
            RegistrationState::Lost { since, error: known } => (Some(*since), is_out(known), false),
            state => (None, false, matches!(state, RegistrationState::Registered)),
        };
        if is_out(&error) && !known {
            tracing::warn!(id = %self.id, %error, "an operator keeps the instance out; asking again now and then");
        } else if was_registered {
            tracing::warn!(id = %self.id, %error, "the registration is no longer confirmed; registering again");
        } else if since.is_none() {
            tracing::warn!(id = %self.id, %error, "not registered yet; asking again until it is");
        } else {
            tracing::debug!(id = %self.id, %error, "the registration is still not confirmed");
        }
        self.state.send_replace(RegistrationState::Lost { since: since.unwrap_or_else(Instant::now), error });
    }

    fn replaced(&self, by: &InstanceId) {
        let known = matches!(&*self.state.borrow(), RegistrationState::Replaced { by: known, .. } if known == by);
        if known {
            return;
        }
        tracing::warn!(id = %self.id, %by, "another instance registered at the same address later, and has it now; registering again only once it is gone");
        self.state.send_replace(RegistrationState::Replaced { since: Instant::now(), by: by.clone() });
    }
}

/// Whether somebody else keeps the instance out, so that trying harder is of no use.
fn is_out(error: &Error) -> bool {
    matches!(error, Error::Discovery(DiscoveryError::Replaced { .. } | DiscoveryError::Blocked { .. }))
}

/// Why a pause ended.
enum Woken {
    /// It is time.
    Time,
    /// There is a connection on which the instance was not registered yet.
    Reconnected,
    /// There has been no connection for a while.
    Away(Error),
    /// The owner wants something else.
    Wish,
}

/// How long the server may go unasked: a third of a short ttl, and never longer than [`RENEWAL`].
fn renewal(registration: &Registration) -> Duration {
    // Jitter adds up to a fifth; a third of the ttl leaves room for that and for one lost call.
    registration.check.ttl.map_or(RENEWAL, |ttl| (ttl / 3).min(RENEWAL))
}
