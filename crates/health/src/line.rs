//! The line between the handle and one visitor.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::CheckKind;
use roundsman_registry::{Health, Record};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// No renewal counts any more.
const EXPIRED: u64 = u64::MAX;

/// Carries to a visitor what others know of its instance: nudges, renewals, and how it stands in the registry, to which other
/// servers contribute. Nothing is ever queued: the last one counts.
#[derive(Debug)]
pub(crate) struct Line {
    epoch: Instant,
    nudge: Notify,
    /// The last renewal, in milliseconds since the epoch, or [`EXPIRED`].
    renewed: AtomicU64,
    /// Whether that was a call to this server.
    called: AtomicBool,
    /// How long the instance is remembered once it is evicted, in milliseconds; 0: as the settings say.
    forget_after: AtomicU64,
    /// Its health in the registry, or what was said here since.
    shown: Mutex<Health>,
}

/// A renewal that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal(u64);

// === impl Line ===

impl Line {
    /// The line to the visitor of a record, which counts as renewed now.
    pub(crate) fn new(epoch: Instant, record: &Record) -> Self {
        let line = Self {
            epoch,
            nudge: Notify::new(),
            renewed: AtomicU64::new(0),
            called: AtomicBool::new(false),
            forget_after: AtomicU64::new(0),
            shown: Mutex::new(record.observed.health),
        };
        line.renewed.store(line.now(), Ordering::Release);
        line.remember_for(record.forget_after());
        line
    }

    /// Takes in how the instance stands in the registry. Whether that is a reason to look at once: another server evicted it or
    /// brought it back, it doubts one that calls in, or another time is left to one that is out.
    pub(crate) fn learn(&self, record: &Record) -> bool {
        let (health, out) = (record.observed.health, record.is_evicted());
        let before = self.show(health);
        let turned = (before == Health::Evicted) != (health == Health::Evicted);
        let doubted = before != health && record.instance.check.kind == CheckKind::Ttl;
        let remembered = self.remember_for(record.forget_after());
        turned || doubted || (remembered && out)
    }

    /// Its health in the registry, or what was said here since.
    pub(crate) fn shown(&self) -> Health {
        *self.health()
    }

    /// This is its health from now on. Returns what it was.
    pub(crate) fn show(&self, health: Health) -> Health {
        std::mem::replace(&mut *self.health(), health)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(EXPIRED - 1)
    }

    /// From now on it is remembered so long. Whether that is news.
    fn remember_for(&self, forget_after: Option<Duration>) -> bool {
        let millis = forget_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
        self.forget_after.swap(millis, Ordering::AcqRel) != millis
    }

    /// How long it is remembered once it is evicted, where it wants another time than the settings say.
    pub(crate) fn forget_after(&self) -> Option<Duration> {
        let millis = self.forget_after.load(Ordering::Acquire);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Asks for a visit at once.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Waits for a nudge; one that came earlier is remembered. Cancel safe.
    pub(crate) fn nudged(&self) -> Notified<'_> {
        self.nudge.notified()
    }

    /// The instance called in. `false`: too late. For one that is remembered for a time of its own it never is.
    pub(crate) fn renew(&self) -> bool {
        let (now, patient) = (self.now(), self.forget_after().is_some());
        let renew = |last| (last != EXPIRED || patient).then_some(now);
        if self.renewed.fetch_update(Ordering::AcqRel, Ordering::Acquire, renew).is_err() {
            return false;
        }
        self.called.store(true, Ordering::Release);
        if self.shown() != Health::Passing {
            self.nudge();
        }
        true
    }

    /// Whether it called in here within `ttl`.
    pub(crate) fn heard(&self, ttl: Duration) -> bool {
        let lately = |last| self.at(last).elapsed() <= ttl;
        self.called() && self.renewal().is_some_and(lately)
    }

    /// Whether it called in here and not only registered, which may have been elsewhere.
    pub(crate) fn called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// Takes renewals in again, because another server hears of it.
    pub(crate) fn begin_anew(&self) {
        let now = self.now();
        if self.renewed.compare_exchange(EXPIRED, now, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.called.store(false, Ordering::Release);
        }
    }

    /// The last renewal; [`None`] after it expired.
    pub(crate) fn renewal(&self) -> Option<Renewal> {
        let last = self.renewed.load(Ordering::Acquire);
        (last != EXPIRED).then_some(Renewal(last))
    }

    /// When a renewal was.
    pub(crate) fn at(&self, renewal: Renewal) -> Instant {
        self.epoch + Duration::from_millis(renewal.0)
    }

    /// Refuses renewals from now on, unless there was another one since `seen`.
    pub(crate) fn expire(&self, seen: Renewal) -> bool {
        self.renewed.compare_exchange(seen.0, EXPIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Refuses renewals: the instance is evicted already.
    pub(crate) fn expire_now(&self) {
        self.renewed.store(EXPIRED, Ordering::Release);
    }
}
