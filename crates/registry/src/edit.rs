//! Changes: as they are asked for, as a store keeps them, and what they did.

use std::sync::Arc;

use roundsman_protocol::{Instance, InstanceId, Namespace, Registration, Timestamp};

use crate::record::{Health, Record};

/// Where a record belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The tenant.
    pub namespace: Namespace,
    /// The instance, unique in the namespace.
    pub id: InstanceId,
}

/// A change of the registry, to be carried out as it stands at that moment.
///
/// Edits are small on purpose: while a batch is on its way to the store, observations go on changing the same
/// instances, and neither may undo the other.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Registers, or changes what an instance said of itself.
    Register {
        /// Which one.
        key: Key,
        /// What it says.
        registration: Arc<Registration>,
        /// The number of a new life, should one begin.
        incarnation: u64,
        /// When.
        at: Timestamp,
    },
    /// Takes an instance out for good.
    Remove {
        /// Which one.
        key: Key,
        /// Why: `deregistered`, `replaced by product-x`, `probation is over`.
        reason: Arc<str>,
    },
    /// Stops or resumes handing out. For one that is evicted: from its reinstatement on.
    Drain {
        /// Which one.
        key: Key,
        /// Stop, or resume.
        on: bool,
        /// When.
        at: Timestamp,
    },
    /// What a visit changed.
    Observe {
        /// Which one.
        key: Key,
        /// In which of its lives; in another one the observation no longer counts.
        incarnation: u64,
        /// The health from now on.
        health: Health,
        /// Why.
        reason: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// An edit that was carried out on a draft before it was committed. What came out there is taken over if nothing
    /// happened meanwhile, so that store and registry share one record; otherwise the edit is carried out anew.
    Planned {
        /// The edit.
        edit: Box<Edit>,
        /// The record that the draft found.
        before: Option<Arc<Record>>,
        /// The record that the draft left.
        after: Option<Arc<Record>>,
    },
    /// What another server on the same store committed.
    Adopt {
        /// The record as it committed it; its incarnation is replaced by a new one where it matters.
        record: Arc<Record>,
        /// The number of a new life, should one begin.
        incarnation: u64,
    },
}

/// A change as a store keeps it: absolute, so that writing it twice does no harm.
#[derive(Clone, Debug)]
pub enum Change {
    /// This is the record now. One that is evicted leaves the live store and is kept for its probation.
    Put(Arc<Record>),
    /// The record is gone.
    Remove(Arc<Record>),
}

/// What an edit did to one record.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The record before, if there was one.
    pub before: Option<Arc<Record>>,
    /// The record after, if there is one.
    pub after: Option<Arc<Record>>,
    /// Why.
    pub reason: Arc<str>,
}

// === impl Change ===

impl Change {
    /// Which record it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(record) | Self::Remove(record) => record.key(),
        }
    }
}

// === impl Effect ===

impl Effect {
    /// Whether it is about this record.
    pub(crate) fn is_about(&self, key: &Key) -> bool {
        let record = self.after.as_ref().or(self.before.as_ref());
        record.is_some_and(|record| record.instance.id == key.id && record.instance.namespace == key.namespace)
    }
}

// === impl Edit ===

impl Edit {
    /// Which record it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Register { key, .. }
            | Self::Remove { key, .. }
            | Self::Drain { key, .. }
            | Self::Observe { key, .. } => key.clone(),
            Self::Planned { edit, .. } => edit.key(),
            Self::Adopt { record, .. } => record.key(),
        }
    }

    /// Why a record is gone after this edit.
    pub(crate) fn reason(&self) -> Arc<str> {
        match self {
            Self::Remove { reason, .. } => Arc::clone(reason),
            Self::Planned { edit, .. } => edit.reason(),
            Self::Register { .. } | Self::Drain { .. } | Self::Observe { .. } | Self::Adopt { .. } => "removed".into(),
        }
    }

    /// The record after this edit, given the one before. `None`: there is none afterwards.
    #[must_use]
    pub fn carry_out(&self, current: Option<&Arc<Record>>) -> Option<Arc<Record>> {
        match self {
            Self::Register { key, registration, incarnation, at } => {
                Some(register(current, key, registration, *incarnation, *at))
            }
            Self::Remove { .. } => None,
            Self::Drain { on, at, .. } => Some(drain(current?, *on, *at)),
            Self::Observe { incarnation, health, reason, at, .. } => {
                let current = current?;
                // Of one that does not pass yet, the last reason why is worth knowing.
                let news = *health == Health::Starting && current.instance.reason != *reason;
                if current.incarnation != *incarnation || (current.health == *health && !news) {
                    return Some(Arc::clone(current));
                }
                Some(Arc::new(current.flipped(*health, current.draining, Arc::clone(reason), *at)))
            }
            Self::Planned { before, after, .. } if before.as_ref().map(Arc::as_ptr) == current.map(Arc::as_ptr) => {
                after.clone()
            }
            Self::Planned { edit, .. } => edit.carry_out(current),
            Self::Adopt { record, incarnation } => Some(adopt(current, record, *incarnation)),
        }
    }
}

fn register(
    current: Option<&Arc<Record>>,
    key: &Key,
    registration: &Registration,
    incarnation: u64,
    at: Timestamp,
) -> Arc<Record> {
    let Some(current) = current else {
        return Arc::new(Record::registered(key, registration, incarnation, at));
    };
    if current.says(registration) {
        return Arc::clone(current);
    }
    if same_life(current, registration) {
        return Arc::new(current.updated(registration));
    }
    let fresh = Record::registered(key, registration, incarnation, at);
    let reason = Arc::clone(&fresh.instance.reason);
    // A client registers by itself after an eviction: that takes back no drain which its owner asked for.
    let draining = current.draining && same_process(current, registration);
    let history = current.flipped(fresh.health, draining, reason, at).history;
    Arc::new(Record::restored(Instance::clone(&fresh.instance), fresh.health, draining, incarnation, history))
}

/// A wish of the owner, which holds whatever is observed: one that is evicted stays so, and is drained once it is back.
fn drain(current: &Arc<Record>, on: bool, at: Timestamp) -> Arc<Record> {
    if current.draining == on {
        return Arc::clone(current);
    }
    if current.health == Health::Evicted {
        // Nothing that anybody sees has changed, the reason of the eviction least of all.
        return Arc::new(Record { draining: on, ..Record::clone(current) });
    }
    let reason = if on { "drained by request" } else { "drain undone by request" };
    Arc::new(current.flipped(current.health, on, reason.into(), at))
}

/// Whether the health that was observed so far says anything about what registers now.
fn same_life(current: &Record, registration: &Registration) -> bool {
    current.health != Health::Evicted && same_process(current, registration)
}

/// Whether what registers now is visited where and how `current` was.
fn same_process(current: &Record, registration: &Registration) -> bool {
    current.instance.name == registration.name
        && current.instance.address == registration.address
        && *current.instance.check == registration.check
}

fn adopt(current: Option<&Arc<Record>>, record: &Arc<Record>, incarnation: u64) -> Arc<Record> {
    match current {
        Some(current) if current == record => Arc::clone(current),
        Some(current)
            if current.instance.address == record.instance.address
                && current.instance.check == record.instance.check
                && current.health == record.health =>
        {
            Arc::new(Record { incarnation: current.incarnation, ..Record::clone(record) })
        }
        _ => Arc::new(Record { incarnation, ..Record::clone(record) }),
    }
}
