//! One service at one moment, and whose turn it is.

mod parts;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use roundsman_protocol::{InstanceId, ServiceName, ServiceSummary};

use self::parts::Parts;
use crate::{
    record::Record,
    roster::{Member, Put, Roster},
    tally::Tally,
};

/// One service at one moment. Immutable.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct View {
    /// All records, those on probation included, by id. First, for lookups.
    pub(crate) records: Roster<Arc<Record>>,
    pub(crate) name: ServiceName,
    /// The namespace's revision when it last changed.
    pub(crate) revision: u64,
    /// The sums that digests need, of a large service and once somebody asked.
    parts: OnceLock<Box<Parts>>,
}

/// Where a service's current view is found, and whose turn it is across views.
#[derive(Debug)]
pub(crate) struct Cell {
    view: ArcSwap<View>,
    turn: AtomicU64,
}

// === impl View ===

impl View {
    pub(crate) fn new(name: ServiceName) -> Self {
        Self { name, records: Roster::default(), revision: 0, parts: OnceLock::new() }
    }

    /// The view after some changes of its records, which are in order.
    pub(crate) fn after(&self, puts: &[Put<Arc<Record>>], revision: u64) -> Self {
        let parts = OnceLock::new();
        if let Some(known) = self.parts.get() {
            let _ = parts.set(Box::new(known.after(&self.records, puts)));
        }
        Self { name: self.name.clone(), records: self.records.after(puts), revision, parts }
    }

    /// Who has this turn: in rotation when all weigh the same, otherwise each as often as its weight says,
    /// spread over the turns and not in blocks.
    pub(crate) fn pick(&self, turn: u64) -> Option<&Arc<Record>> {
        let count = self.records.available();
        if count == 0 {
            return None;
        }
        if self.records.is_even() {
            return self.records.nth(u32::try_from(turn % u64::from(count)).ok()?);
        }
        // Multiples of the golden ratio modulo 1 never cluster: after any number of turns each share is met.
        let fraction = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let point = (u128::from(fraction) * u128::from(self.records.tally().weights())) >> 64;
        self.records.at(u64::try_from(point).ok()?)
    }

    /// How many are in which status.
    pub(crate) fn summary(&self) -> ServiceSummary {
        let tally = self.records.tally();
        let Tally { passing, suspect, starting, draining, evicted, .. } = *tally;
        ServiceSummary {
            name: self.name.clone(),
            instances: tally.registered(),
            passing,
            suspect,
            starting,
            draining,
            evicted,
        }
    }
}

impl Member for Arc<Record> {
    type Key = InstanceId;

    fn key(&self) -> &InstanceId {
        &self.instance.id
    }

    fn tally(&self) -> Tally {
        Tally::of(self)
    }

    fn share(&self) -> Option<u32> {
        self.status().is_available().then_some(self.instance.weight)
    }
}

impl Member for Arc<View> {
    type Key = ServiceName;

    fn key(&self) -> &ServiceName {
        &self.name
    }

    fn tally(&self) -> Tally {
        *self.records.tally()
    }

    fn share(&self) -> Option<u32> {
        None
    }
}

// === impl Cell ===

impl Cell {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view: ArcSwap::new(view), turn: AtomicU64::new(0) }
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The record whose turn it is.
    pub(crate) fn next(&self) -> Option<Arc<Record>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.view.load().pick(turn).cloned()
    }

    pub(crate) fn show(&self, view: Arc<View>) {
        self.view.store(view);
    }
}

impl Clone for Cell {
    /// Where the service is found from now on. Only the writer may clone it: it is the one who shows the next view.
    fn clone(&self) -> Self {
        Self { view: ArcSwap::new(self.view.load_full()), turn: AtomicU64::new(self.turn.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests;
