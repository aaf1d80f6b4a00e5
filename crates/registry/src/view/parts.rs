//! The sums of a service's fingerprints by part, for digests.

use std::sync::Arc;

use roundsman_protocol::{Digest, InstanceStatus, Scope, digest::PARTS};

use super::View;
use crate::{
    record::Record,
    roster::{Put, Roster},
};

/// Services of so many records keep their sums once somebody asked; those of fewer are summed up when needed.
const KEPT_FROM: usize = 512;

/// The wrapping sums of the fingerprints by part: of those handed out, of the others that are registered, and of those
/// on probation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts([[u64; PARTS]; 3]);

// === impl View ===

impl View {
    /// Adds to a digest what is in a scope.
    pub(crate) fn add_to(&self, digest: &mut Digest, scope: Scope) {
        let tally = self.records.tally();
        if tally.len() < KEPT_FROM {
            let records = self.records.iter().filter(|record| scope.includes(record.status()));
            records.for_each(|record| digest.add(&record.instance.id, record.fingerprint));
            return;
        }
        let parts = self.parts.get_or_init(|| Box::new(Parts::of(&self.records)));
        let (count, sum) = tally.in_scope(scope);
        digest.count += count;
        digest.sum = digest.sum.wrapping_add(sum);
        for group in parts.0.iter().take(groups(scope)) {
            for (sum, more) in digest.parts.iter_mut().zip(group) {
                *sum = sum.wrapping_add(*more);
            }
        }
    }
}

/// How many of the groups are in a scope.
fn groups(scope: Scope) -> usize {
    match scope {
        Scope::Available => 1,
        Scope::Registered => 2,
        Scope::All => 3,
    }
}

// === impl Parts ===

impl Parts {
    fn of(records: &Roster<Arc<Record>>) -> Self {
        let mut parts = Self([[0; PARTS]; 3]);
        records.iter().for_each(|record| parts.apply(record, u64::wrapping_add));
        parts
    }

    /// The sums after `puts` into these records.
    pub(super) fn after(&self, records: &Roster<Arc<Record>>, puts: &[Put<Arc<Record>>]) -> Self {
        let mut parts = self.clone();
        for Put { key, member } in puts {
            records.get(key).into_iter().for_each(|before| parts.apply(before, u64::wrapping_sub));
            member.iter().for_each(|after| parts.apply(after, u64::wrapping_add));
        }
        parts
    }

    fn apply(&mut self, record: &Record, combine: fn(u64, u64) -> u64) {
        let group = match record.status() {
            InstanceStatus::Passing | InstanceStatus::Suspect => 0,
            InstanceStatus::Starting | InstanceStatus::Draining => 1,
            InstanceStatus::Evicted => 2,
        };
        if let Some(sum) = self.0.get_mut(group).and_then(|sums| sums.get_mut(record.instance.id.part())) {
            *sum = combine(*sum, record.fingerprint);
        }
    }
}
