//! Instances that nobody visits, because they call in within their ttl.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use roundsman_protocol::{Timestamp, time::display};
use roundsman_registry::{Health, Record};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Name, name, telling::Deaf};
use crate::{
    line::{Line, Renewal},
    observation::Class,
    shared::Shared,
};

/// How often a ttl that ran out looks whether evictions may begin.
const GATE_DELAY: Duration = Duration::from_millis(200);
/// So many of our stops in a row are forgiven to one that does not call in; otherwise it would never end on a server that lags
/// time and again.
pub(super) const FORGIVEN_STOPS: u8 = 3;

/// How often the clock is looked at while an id is kept out.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// One that calls in at another server is asked for at most so seldom.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3_600);

/// Waits for the calls of one instance.
///
/// It may call in at any server that shares the store, and the others do not hear of that: nothing is written for it. So where
/// there may be others, one that stops calling in here is doubted first. Every server sees that, and the one where it calls in
/// answers that it is well; then this one asks ever more seldom.
struct Caller {
    shared: Arc<Shared>,
    line: Arc<Line>,
    name: Name,
    ttl: Duration,
}

/// How long an instance may still take to call in.
#[derive(Clone, Copy, Debug)]
struct Grace {
    renewal: Renewal,
    /// It has all its time from here on: its renewal, the end of a stop of ours, or while evictions were held back.
    from: Instant,
    /// Its ttl, or longer when it calls in elsewhere.
    patience: Duration,
    stops: u8,
}

/// Waits for the renewals of an instance, and evicts it when they stop. It registered, which counts as the first one;
/// after a restart or a stop of the server it gets one full ttl. Only registering again brings it back after an eviction, or
/// calling in, for one that is remembered for a time of its own.
pub(crate) async fn called(shared: Arc<Shared>, line: Arc<Line>, record: Arc<Record>, ttl: Duration) {
    let (name, health, since) = (name(&record), record.observed.health, record.observed.since);
    // Not held on to: the record changes, and this task may outlive it by months.
    drop(record);
    let served = (health == Health::Evicted).then(|| shared.clock.now().since(since));
    let Err(Deaf) = Caller { shared, line, name, ttl }.attend(served).await;
}

/// Waits until the block of an id is over.
pub(crate) async fn kept_out(shared: Arc<Shared>, name: Name, until: Timestamp) {
    loop {
        let left = until.since(shared.clock.now());
        if left.is_zero() {
            break;
        }
        // A clock that is set meanwhile is looked at again.
        sleep(left.min(LOOK_AGAIN)).await;
    }
    let _ = shared.let_go(&name, Arc::from("its block is over")).await;
}

// === impl Caller ===

impl Caller {
    /// Goes on until it is dropped because the instance is gone. `served`: how much of its probation is over, if it is out.
    async fn attend(&self, served: Option<Duration>) -> Result<Infallible, Deaf> {
        if let Some(served) = served {
            self.line.expire_now();
            self.on_probation(served).await?;
        }
        loop {
            self.silence().await?;
            if self.line.shown() != Health::Evicted {
                let reason = format!("no renewal within {}", display(self.ttl));
                self.say(Health::Evicted, Class::Ttl, reason.into()).await?;
            }
            self.on_probation(Duration::ZERO).await?;
        }
    }

    async fn say(&self, health: Health, class: Class, reason: Arc<str>) -> Result<(), Deaf> {
        self.shared.observe(&self.name, &self.line, health, class, reason).await
    }

    /// Ends when no renewal came for as long as it may take; from then on renewals are refused.
    async fn silence(&self) -> Result<(), Deaf> {
        let mut grace: Option<Grace> = None;
        while let Some(renewal) = self.line.renewal() {
            self.vouch().await?;
            let new = || Grace { renewal, from: self.line.at(renewal), patience: self.patience(), stops: 0 };
            let mut current = grace.filter(|grace| grace.renewal == renewal).unwrap_or_else(new);
            let now = Instant::now();
            if now >= current.end() && current.forgive(self.shared.lag.thaw(current.from, now)) {
                self.shared.void();
            }
            grace = Some(current);
            if self.line.shown() == Health::Evicted {
                // By another server, and it does not call in here.
                self.line.expire(renewal);
            } else if now < current.end() {
                tokio::select! {
                    () = sleep_until(current.end()) => {}
                    // Another server says something of it.
                    () = self.line.nudged() => {}
                }
            } else if self.shared.brakes(now) {
                // Who hears hardly anybody is cut off from those who call in, too. Once that is over they need time to come back.
                grace = Some(Grace { from: now, ..current });
            } else if !self.shared.gate_is_open() {
                sleep(GATE_DELAY).await;
            } else if self.is_heard_elsewhere(renewal).await? {
                grace = Some(current.longer(Instant::now()));
            } else {
                self.line.expire(renewal);
            }
        }
        Ok(())
    }

    /// How long it may be silent. One that never called in here probably does elsewhere, and is asked for later, at a time of its
    /// own: when a server starts, it hears of thousands at once, and so would all the others.
    fn patience(&self) -> Duration {
        let elsewhere = self.shared.settings.replicas && !self.line.called();
        let spread = if elsewhere { self.ttl.max(self.shared.settings.probation) } else { Duration::ZERO };
        self.ttl + spread.mul_f64(fastrand::f64())
    }

    /// Says that it is well, where the registry does not show it although it called in.
    async fn vouch(&self) -> Result<(), Deaf> {
        let shown = self.line.shown();
        let well = match shown {
            Health::Passing => false,
            // It registered, which counts as the first call.
            Health::Starting => true,
            Health::Suspect | Health::Evicted => self.line.heard(self.ttl),
        };
        if !well {
            return Ok(());
        }
        if shown == Health::Evicted {
            self.shared.counters.reinstatements.fetch_add(1, Ordering::Relaxed);
        }
        self.say(Health::Passing, Class::Passed, Arc::from("called in")).await
    }

    /// Doubts one that does not call in here, and gives the others time to say that it does there: as long as a visit may take,
    /// and until it should have called in once more, because there may be many to ask for at once.
    async fn is_heard_elsewhere(&self, renewal: Renewal) -> Result<bool, Deaf> {
        if !self.shared.settings.replicas {
            return Ok(false);
        }
        let reason = format!("no renewal within {} at one server; the others are asked", display(self.ttl));
        self.say(Health::Suspect, Class::Ttl, reason.into()).await?;
        let patience = self.shared.settings.timeout.max(self.ttl / 3);
        let mut asked = Grace { renewal, from: Instant::now(), patience, stops: 0 };
        while self.line.renewal() == Some(renewal) && self.line.shown() == Health::Suspect {
            let now = Instant::now();
            if now >= asked.end() {
                if !asked.forgive(self.shared.lag.thaw(asked.from, now)) {
                    break;
                }
                self.shared.void();
            }
            tokio::select! {
                () = sleep_until(asked.end()) => {}
                () = self.line.nudged() => {}
            }
        }
        Ok(self.line.shown() == Health::Passing)
    }

    /// Waits until it is back: it called in here, or does at another server. `served`: how much of its probation is over.
    /// When all of it is, says so, and waits for being dropped.
    async fn on_probation(&self, served: Duration) -> Result<(), Deaf> {
        let (began, mut forgotten) = (Instant::now(), false);
        loop {
            if self.line.shown() != Health::Evicted {
                self.line.begin_anew();
            }
            if self.line.renewal().is_some() {
                return Ok(());
            }
            let probation = self.line.forget_after().unwrap_or(self.shared.settings.probation);
            let left = probation.saturating_sub(served + began.elapsed());
            if left.is_zero() && !forgotten {
                self.shared.forget(&self.name, &self.line).await?;
                forgotten = true;
                continue;
            }
            tokio::select! {
                () = sleep(left), if !forgotten => {}
                // It called in, or another server says something of it.
                () = self.line.nudged() => {}
            }
        }
    }
}

// === impl Grace ===

impl Grace {
    fn end(&self) -> Instant {
        self.from + self.patience
    }

    /// Begins anew at the end of a stop: what came meanwhile may not have been read yet.
    fn forgive(&mut self, thaw: Option<Instant>) -> bool {
        let Some(thaw) = thaw.filter(|thaw| *thaw > self.from && self.stops < FORGIVEN_STOPS) else { return false };
        self.from = thaw;
        self.stops += 1;
        true
    }

    /// Waits twice as long from now on.
    fn longer(self, now: Instant) -> Self {
        Self { from: now, patience: (self.patience * 2).min(LONGEST_PATIENCE.max(self.patience)), ..self }
    }
}
