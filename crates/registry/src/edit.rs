//! Changes: as they are to be carried out, as a store keeps them, and what they did.

mod change;

use std::sync::Arc;

use roundsman_protocol::{InstanceId, Namespace, Registration, Timestamp};

pub use self::change::{Change, Known, Part, Ruling, Tombstone};
use crate::record::{Asked, Health, Record};

/// Why what was left of a blocked instance is gone when its block was lifted.
pub const LET_IN: &str = "let in again";

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
        /// The version of what is asked for.
        version: u64,
        /// When.
        at: Timestamp,
    },
    /// Takes an instance out for good.
    Remove {
        /// Which one.
        key: Key,
        /// Why: `deregistered`, `replaced by product-x`.
        reason: Arc<str>,
        /// The version of what is asked for.
        version: u64,
    },
    /// Stops or resumes handing out. For one that is evicted: from its reinstatement on.
    Drain {
        /// Which one.
        key: Key,
        /// Stop, or resume.
        on: bool,
        /// Whether an operator asks, whose drains its owner does not take back.
        operator: bool,
        /// The version of what is asked for.
        version: u64,
        /// When.
        at: Timestamp,
    },
    /// Changes what an instance says of itself, whether it is out or not.
    Update {
        /// Which one.
        key: Key,
        /// What it says from now on.
        registration: Arc<Registration>,
        /// The version of what is asked for.
        version: u64,
        /// When.
        at: Timestamp,
    },
    /// Takes an instance out, and keeps its id out.
    Block {
        /// Which one.
        key: Key,
        /// Until when.
        until: Timestamp,
        /// Who asked for it.
        by: Arc<str>,
        /// The version of what is asked for.
        version: u64,
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
        /// The server whose rounds it was.
        by: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// Takes out an instance whose probation is over.
    Forget {
        /// Which one.
        key: Key,
        /// In which of its lives.
        incarnation: u64,
        /// Why.
        reason: Arc<str>,
    },
    /// An edit that was carried out on a draft before it was committed. What came out there is taken over if nothing
    /// happened meanwhile, so that store and registry share one record; otherwise the two are put together as a store does.
    Planned {
        /// The edit.
        edit: Box<Edit>,
        /// The record that the draft found.
        before: Option<Arc<Record>>,
        /// The record that the draft left.
        after: Option<Arc<Record>>,
    },
    /// How a record stands in the store that this server shares with others, or loads.
    Adopt {
        /// The record as the store has it. Where its owner asked for something later here, that stays.
        record: Arc<Record>,
        /// Whether what was observed here is later than what the store has.
        seen_later: bool,
    },
    /// What another server on the same store took out.
    Bury(Tombstone),
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
            | Self::Update { key, .. }
            | Self::Block { key, .. }
            | Self::Observe { key, .. }
            | Self::Forget { key, .. } => key.clone(),
            Self::Planned { edit, .. } => edit.key(),
            Self::Adopt { record, .. } => record.key(),
            Self::Bury(tombstone) => tombstone.key.clone(),
        }
    }

    /// Why a record is gone after this edit.
    pub(crate) fn reason(&self) -> Arc<str> {
        match self {
            Self::Remove { reason, .. } | Self::Forget { reason, .. } => Arc::clone(reason),
            Self::Planned { edit, .. } => edit.reason(),
            Self::Bury(_) => "removed by another server".into(),
            Self::Register { .. }
            | Self::Drain { .. }
            | Self::Update { .. }
            | Self::Block { .. }
            | Self::Observe { .. }
            | Self::Adopt { .. } => "removed".into(),
        }
    }

    /// The version that comes from elsewhere with it, if any does.
    pub(crate) fn version(&self) -> Option<u64> {
        match self {
            Self::Adopt { record, .. } => Some(record.asked.version),
            Self::Bury(tombstone) => Some(tombstone.version),
            _ => None,
        }
    }

    /// The record after this edit, given the one before. `None`: there is none afterwards.
    #[must_use]
    pub fn carry_out(&self, current: Option<&Arc<Record>>) -> Option<Arc<Record>> {
        match self {
            Self::Register { key, registration, version, at } => {
                Some(register(current, key, registration, *version, *at))
            }
            Self::Remove { .. } => None,
            // A wish that holds whatever is observed: one that is evicted stays so, and is drained once back.
            Self::Drain { on, operator, version, at, .. } => {
                let current = current?;
                Some(drain(current, *on, *operator, *version, *at).map_or_else(|| Arc::clone(current), Arc::new))
            }
            Self::Update { key, registration, version, at } => {
                let current = current?;
                let updated = match is_same_process(current, registration) {
                    true => current.updated(registration, *version),
                    false => current.reborn(key, registration, current.asked.draining, *version, *at),
                };
                Some(Arc::new(updated))
            }
            Self::Block { until, by, version, at, .. } => Some(Arc::new(current?.blocked(*until, by, *version, *at))),
            Self::Observe { incarnation, health, reason, by, at, .. } => {
                let (current, seen) = (current?, &current?.observed);
                // Of one that does not pass yet, the last reason why is worth knowing.
                let news = *health == Health::Starting && seen.reason != *reason;
                if current.asked.incarnation != *incarnation || (seen.health == *health && !news) {
                    return Some(Arc::clone(current));
                }
                Some(Arc::new(current.seen(*health, Arc::clone(reason), Arc::clone(by), *at)))
            }
            Self::Forget { incarnation, .. } => {
                let gone = |current: &Record| current.is_evicted() && current.asked.incarnation == *incarnation;
                current.filter(|current| !gone(current)).cloned()
            }
            Self::Planned { before, after, .. } if before.as_ref().map(Arc::as_ptr) == current.map(Arc::as_ptr) => {
                after.clone()
            }
            Self::Planned { edit, after, .. } => committed(current, edit, after.as_ref()),
            Self::Adopt { record, seen_later } => Some(adopt(current, record, *seen_later)),
            Self::Bury(tombstone) => current.filter(|current| current.asked.version > tombstone.version).cloned(),
        }
    }
}

/// What was planned and is in the store now, while something else happened to the record here.
fn committed(current: Option<&Arc<Record>>, edit: &Edit, after: Option<&Arc<Record>>) -> Option<Arc<Record>> {
    let (Some(current), Some(after)) = (current, after) else {
        let removed =
            |current: &&Arc<Record>| matches!(edit, Edit::Remove { version, .. } if current.asked.version <= *version);
        return current.filter(|current| !removed(current)).or(after).cloned();
    };
    Some(match current.asked.version > after.asked.version {
        true => Arc::clone(current),
        false if current.is_same_life(after) => Arc::new(after.observed_as(current)),
        false => Arc::clone(after),
    })
}

fn register(
    current: Option<&Arc<Record>>,
    key: &Key,
    registration: &Registration,
    version: u64,
    at: Timestamp,
) -> Arc<Record> {
    let Some(current) = current else {
        return Arc::new(Record::registered(key, registration, version, at));
    };
    if current.says(registration) {
        return Arc::clone(current);
    }
    let same_process = is_same_process(current, registration);
    if same_process && !current.is_evicted() {
        return Arc::new(current.updated(registration, version));
    }
    // A client registers by itself after an eviction: that takes back no drain which its owner asked for. Nothing that
    // registers takes back an operator's.
    let draining = current.asked.draining && (same_process || current.asked.held);
    Arc::new(current.reborn(key, registration, draining, version, at))
}

/// The record as a drain, or its end, leaves it; `None` when it stays as it is.
pub(crate) fn drain(current: &Record, on: bool, operator: bool, version: u64, at: Timestamp) -> Option<Record> {
    let Asked { draining, held, .. } = current.asked;
    match (on, operator) {
        (true, true) if !held => Some(current.held(version, at)),
        (true, false) if !draining => Some(current.drained(true, version, at)),
        (false, true) if draining => Some(current.drained(false, version, at)),
        (false, false) if draining && !held => Some(current.drained(false, version, at)),
        _ => None,
    }
}

/// Whether what registers now is visited where and how `current` was.
fn is_same_process(current: &Record, registration: &Registration) -> bool {
    current.instance.name == registration.name
        && current.instance.address == registration.address
        && *current.instance.check == registration.check
}

/// What was asked for and what was observed, each as it was last.
fn adopt(current: Option<&Arc<Record>>, record: &Arc<Record>, seen_later: bool) -> Arc<Record> {
    let Some(current) = current.filter(|current| ***current != **record) else {
        return Arc::clone(current.unwrap_or(record));
    };
    let same_life = current.is_same_life(record);
    let adopted = match (current.asked.version > record.asked.version, same_life) {
        (true, true) if !seen_later => Arc::new(current.observed_as(record)),
        (true, _) => Arc::clone(current),
        (false, true) if seen_later => Arc::new(record.observed_as(current)),
        (false, _) => Arc::clone(record),
    };
    if *adopted == **current { Arc::clone(current) } else { adopted }
}
