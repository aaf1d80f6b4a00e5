//! The line between the handle and one visitor.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// No renewal counts any more.
const EXPIRED: u64 = u64::MAX;

/// Carries nudges and renewals to a visitor. Neither is ever queued: the last one counts.
#[derive(Debug)]
pub(crate) struct Line {
    epoch: Instant,
    nudge: Notify,
    /// The last renewal, in milliseconds since the epoch, or [`EXPIRED`].
    renewed: AtomicU64,
    /// How long the instance is remembered once it is evicted, in milliseconds; 0: as the settings say.
    forget_after: AtomicU64,
}

/// A renewal that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal(u64);

// === impl Line ===

impl Line {
    pub(crate) fn new(epoch: Instant) -> Self {
        let line = Self { epoch, nudge: Notify::new(), renewed: AtomicU64::new(0), forget_after: AtomicU64::new(0) };
        line.renew();
        line
    }

    /// From now on it is remembered so long. Whether that is news.
    pub(crate) fn remember_for(&self, forget_after: Option<Duration>) -> bool {
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
    pub(crate) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// The instance called in. `false`: too late. For one that is remembered for a time of its own it never is.
    pub(crate) fn renew(&self) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(EXPIRED - 1);
        let patient = self.forget_after().is_some();
        let renew = |last| (last != EXPIRED || patient).then_some(now);
        let renewed = self.renewed.fetch_update(Ordering::AcqRel, Ordering::Acquire, renew);
        if renewed == Ok(EXPIRED) {
            self.nudge();
        }
        renewed.is_ok()
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
