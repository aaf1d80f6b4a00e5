//! How the store is doing, as the writer last saw it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use roundsman_protocol::{Clock, status::StoreStatus};
use roundsman_store::{Description, StoreError};

/// How the store is doing. Written by the writer, read by the doors.
#[derive(Debug)]
pub(crate) struct StoreState {
    clock: Clock,
    status: Mutex<StoreStatus>,
}

impl StoreState {
    pub(crate) fn new(store: Description, clock: Clock) -> Self {
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
        Self { clock, status: Mutex::new(status) }
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

    pub(crate) fn unwritten(&self, unwritten: usize) {
        self.lock().unwritten = u64::try_from(unwritten).unwrap_or(u64::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, StoreStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
