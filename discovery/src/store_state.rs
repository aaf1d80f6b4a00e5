//! How the store is doing, as the writer last saw it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roundsman_protocol::{Clock, status::StoreStatus};
use roundsman_store::{Aside, Damage, Description, StoreError};

use crate::metrics::{Metrics, whole};

/// How the store is doing. Written by the writer, read by the doors.
#[derive(Debug)]
pub(crate) struct StoreState {
    clock: Clock,
    status: Mutex<StoreStatus>,
}

impl StoreState {
    pub(crate) fn new(store: Description, clock: Clock, metrics: &mut Metrics) -> Arc<Self> {
        let status = StoreStatus {
            kind: store.kind.to_owned(),
            location: store.location,
            available: false,
            since: clock.now(),
            last_error: None,
            commits: 0,
            unwritten: 0,
            refills: 0,
            damaged: 0,
            repaired: 0,
        };
        let state = Arc::new(Self { clock, status: Mutex::new(status) });
        let (up, unwritten) = (Arc::clone(&state), Arc::clone(&state));
        metrics.reading("store_up", "Whether the store answers.", move || i64::from(up.lock().available));
        let help = "Observed changes not yet written.";
        metrics.reading("store_unwritten", help, move || whole(unwritten.lock().unwritten));
        state
    }

    pub(crate) fn status(&self) -> StoreStatus {
        self.lock().clone()
    }

    /// The store did what it was asked to.
    pub(crate) fn answered(&self) {
        let mut status = self.lock();
        if !status.available {
            status.available = true;
            status.since = self.clock.now();
            drop(status);
            tracing::info!("the store answers");
        }
    }

    /// The store did not. Logged when it begins, not each time.
    pub(crate) fn failed(&self, error: &StoreError) {
        let mut status = self.lock();
        let first = status.available || status.last_error.is_none();
        status.last_error = Some(error.to_string());
        if status.available {
            status.available = false;
            status.since = self.clock.now();
        }
        drop(status);
        if first {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, cause, "the store does not answer; lookups and visits go on, changes are refused until it does");
        }
    }

    pub(crate) fn committed(&self, unwritten: usize) {
        self.lock().commits += 1;
        self.unwritten(unwritten);
    }

    pub(crate) fn refilled(&self) {
        self.lock().refills += 1;
    }

    /// Records were found that cannot be read. Says so, and what became of them.
    pub(crate) fn damaged(&self, damaged: &[Damage], aside: &Aside) {
        let Some(first) = damaged.first() else { return };
        self.lock().damaged += count(damaged.len());
        let (records, first) = (damaged.len(), format!("{}: {}", first.what, first.reason));
        if let Some(left) = &aside.left {
            tracing::error!(
                records,
                first,
                left,
                "left out records that cannot be read; they stay in the store, where they were: mend or delete them by hand"
            );
        } else {
            tracing::error!(
                records,
                first,
                moved = aside.moved,
                kept = aside.place,
                "left out records that cannot be read and moved them aside: look there for what they were, and register by hand what does not by itself"
            );
        }
    }

    /// Records were missing in the store, or there although they were removed.
    pub(crate) fn repaired(&self, records: usize) {
        self.lock().repaired += count(records);
    }

    pub(crate) fn unwritten(&self, unwritten: usize) {
        self.lock().unwritten = count(unwritten);
    }

    fn lock(&self) -> MutexGuard<'_, StoreStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
