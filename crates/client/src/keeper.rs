//! The task behind a [`Registration`](crate::Registration): asks, renews, registers again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{InstanceId, Registration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{Backoff, jittered},
    discovery::Discovery,
    error::Error,
    link::Link,
    registration::RegistrationState,
};

/// How often the server is asked whether it still knows the instance.
const RENEWAL: Duration = Duration::from_secs(5);
/// First and longest pause before the instance registers again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Registered for so long, the pauses start over. An instance that is evicted again and again registers
/// ever more slowly, so that it does not outrun the server's probation.
const SETTLED: Duration = Duration::from_secs(60);

/// What the task does next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// Registers, not before this moment unless a new connection comes up.
    Register { at: Instant },
    /// Asks at this moment, or registers when a new connection comes up.
    Renew { at: Instant },
}

#[derive(Debug)]
pub(crate) struct Keeper {
    discovery: Discovery,
    registration: Registration,
    id: InstanceId,
    state: watch::Sender<RegistrationState>,
    draining: Arc<AtomicBool>,
    link: watch::Receiver<Link>,
    /// The connection on which the instance was registered last.
    generation: Option<u64>,
    backoff: Backoff,
    registered_at: Instant,
    next: Next,
}

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(
        discovery: &Discovery,
        registration: Registration,
        id: InstanceId,
        generation: Option<u64>,
        state: watch::Sender<RegistrationState>,
        draining: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let at = now + jittered(renewal(&registration));
        Self {
            discovery: discovery.clone(),
            next: generation.map_or(Next::Register { at: now }, |_| Next::Renew { at }),
            registration,
            id,
            state,
            draining,
            link: discovery.inner.link.clone(),
            generation,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            registered_at: now,
        }
    }

    /// Keeps the instance until `stop`, or, when the client is closed, deregisters it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let closing = self.discovery.inner.closing.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = closing.cancelled() => {
                if let Err(error) = self.discovery.deregister(&self.id).await
                    && !error.is_not_found()
                {
                    tracing::warn!(id = %self.id, %error, "could not deregister; the server's visits will notice");
                }
            }
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        loop {
            match self.next {
                Next::Register { at } => {
                    if Instant::now() < at {
                        self.pause_until(at).await;
                    }
                    self.register().await;
                }
                Next::Renew { at } => match self.pause_until(at).await {
                    Woken::Reconnected => self.register().await,
                    Woken::Away(error) => self.lost(error),
                    Woken::Time => self.renew().await,
                },
            }
        }
    }

    /// Waits for a moment, or for what happens to the connection.
    async fn pause_until(&mut self, at: Instant) -> Woken {
        let known = self.generation;
        let lost = matches!(*self.state.borrow(), RegistrationState::Lost { .. });
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
            () = sleep_until(at) => return Woken::Time,
        }
        // The supervisor has ended, and with it every use of this task: wait to be stopped.
        std::future::pending().await
    }

    async fn register(&mut self) {
        let (result, generation) = self.discovery.register_on(&self.registration).await;
        // After a failure, too: only another connection, or the pause, is a reason to try again.
        self.generation = generation;
        match result {
            Ok(_) => {
                self.registered_at = Instant::now();
                self.drain_again().await;
                self.confirmed();
            }
            Err(error) => {
                self.lost(error);
                self.next = Next::Register { at: Instant::now() + self.backoff.next() };
            }
        }
    }

    /// A server that did not know the instance does not know either that it wants to be left alone.
    async fn drain_again(&self) {
        while self.draining.load(Ordering::Relaxed) {
            match self.discovery.drain(&self.id, true).await {
                Err(error) if error.is_retryable() => sleep(jittered(Duration::from_secs(1))).await,
                _ => return,
            }
        }
    }

    async fn renew(&mut self) {
        match self.discovery.renew(&self.id).await {
            Ok(()) => {
                if self.registered_at.elapsed() > SETTLED {
                    self.backoff.reset();
                }
                self.confirmed();
            }
            Err(error) => {
                let unknown = error.is_not_found();
                self.lost(error);
                self.next = if unknown {
                    Next::Register { at: Instant::now() + self.backoff.next() }
                } else {
                    Next::Renew { at: Instant::now() + jittered(renewal(&self.registration)) }
                };
            }
        }
    }

    fn confirmed(&mut self) {
        self.next = Next::Renew { at: Instant::now() + jittered(renewal(&self.registration)) };
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
        let since = match &*self.state.borrow() {
            RegistrationState::Lost { since, .. } => Some(*since),
            _ => None,
        };
        if since.is_none() {
            tracing::warn!(id = %self.id, %error, "the registration is no longer confirmed; registering again");
        } else {
            tracing::debug!(id = %self.id, %error, "the registration is still not confirmed");
        }
        self.state.send_replace(RegistrationState::Lost { since: since.unwrap_or_else(Instant::now), error });
    }
}

/// Why a pause ended.
enum Woken {
    /// It is time.
    Time,
    /// There is a connection on which the instance was not registered yet.
    Reconnected,
    /// There has been no connection for a while.
    Away(Error),
}

/// How long the server may go unasked: a third of a short ttl, and never longer than [`RENEWAL`].
fn renewal(registration: &Registration) -> Duration {
    // Jitter adds up to a fifth; a third of the ttl leaves room for that and for one lost call.
    registration.check.ttl.map_or(RENEWAL, |ttl| (ttl / 3).min(RENEWAL))
}
