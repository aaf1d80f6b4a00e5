//! Instances that nobody visits, because they call in within their ttl.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Health, Record};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Name, PROBATION, forgotten_after, name};
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

/// How long an instance may still take to call in.
#[derive(Clone, Copy, Debug)]
struct Grace {
    renewal: Renewal,
    /// It has a full ttl from here on: its renewal, the end of a stop of ours, or while evictions were held back.
    from: Instant,
    stops: u8,
}

/// Waits for the renewals of an instance, and evicts it when they stop. It registered, which counts as the first one;
/// after a restart or a stop of the server it gets one full ttl. Only registering again brings it back after an eviction, or
/// calling in, for one that is remembered for a time of its own.
pub(crate) async fn called(shared: Arc<Shared>, line: Arc<Line>, record: Arc<Record>, ttl: Duration) {
    let name = name(&record);
    let (mut health, since) = (record.observed.health, record.observed.since);
    // Not held on to: the record changes, and this task may outlive it by months.
    drop(record);
    let mut served = Duration::ZERO;
    if health == Health::Evicted {
        line.expire_now();
        served = shared.clock.now().since(since);
    }
    loop {
        if health == Health::Evicted {
            if let Some(why) = remembered(&shared, &line, served).await {
                let _ = shared.forget(&name, why).await;
                return;
            }
            served = Duration::ZERO;
        }
        let called_in = Arc::from("called in");
        if health != Health::Passing && shared.observe(&name, Health::Passing, Class::Passed, called_in).await.is_err()
        {
            return;
        }
        expired(&shared, &line, ttl).await;
        let reason = format!("no renewal within {}", roundsman_protocol::time::display(ttl));
        if shared.observe(&name, Health::Evicted, Class::Ttl, reason.into()).await.is_err() {
            return;
        }
        health = Health::Evicted;
    }
}

/// Waits until the probation of one is over that does not call in; `served`: how much of it is. Why it is forgotten, or
/// `None` when it called in.
async fn remembered(shared: &Shared, line: &Line, served: Duration) -> Option<Arc<str>> {
    let began = Instant::now();
    loop {
        let own = line.forget_after();
        let left = own.unwrap_or(shared.settings.probation).saturating_sub(served + began.elapsed());
        if left.is_zero() {
            return Some(own.map_or_else(|| Arc::from(PROBATION), forgotten_after));
        }
        if line.renewal().is_some() {
            shared.counters.reinstatements.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        tokio::select! {
            () = sleep(left) => {}
            // It called in, or is remembered for another time from now on.
            () = line.nudged() => {}
        }
    }
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
    let _ = shared.forget(&name, Arc::from("its block is over")).await;
}

/// Ends when no renewal came for a whole ttl; from then on renewals are refused.
async fn expired(shared: &Shared, line: &Line, ttl: Duration) {
    let mut grace: Option<Grace> = None;
    while let Some(renewal) = line.renewal() {
        let new = Grace { renewal, from: line.at(renewal), stops: 0 };
        let mut current = grace.filter(|grace| grace.renewal == renewal).unwrap_or(new);
        let now = Instant::now();
        if now >= current.from + ttl && current.forgive(shared.lag.thaw(current.from, now)) {
            shared.void();
        }
        grace = Some(current);
        let end = current.from + ttl;
        if now < end {
            sleep_until(end).await;
        } else if shared.brakes(now) {
            // Who hears hardly anybody is cut off from those who call in, too. Once that is over they need time to come back.
            grace = Some(Grace { from: now, ..current });
        } else if !shared.gate_is_open() {
            sleep(GATE_DELAY).await;
        } else if line.expire(renewal) {
            return;
        }
    }
}

// === impl Grace ===

impl Grace {
    /// Begins anew at the end of a stop: renewals that came meanwhile may not have been read yet.
    fn forgive(&mut self, thaw: Option<Instant>) -> bool {
        let Some(thaw) = thaw.filter(|thaw| *thaw > self.from && self.stops < FORGIVEN_STOPS) else { return false };
        self.from = thaw;
        self.stops += 1;
        true
    }
}
