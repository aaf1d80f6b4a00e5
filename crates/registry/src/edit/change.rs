//! Changes as a store keeps them: each says what is, and whose business it is, so that writing it twice does no harm and
//! nobody overwrites what is not theirs.

use std::sync::Arc;

use super::Key;
use crate::record::{Asked, Record};

/// A change for a store to make durable.
///
/// What was asked for and what was observed have different owners. A request is refused when the store knows a later one;
/// an observation is written to the life that it is about, or not at all. Neither touches the fields of the other.
#[derive(Clone, Debug)]
pub enum Change {
    /// An owner or operator asked for this. Of a life that the store knows, what was observed there stays as it is; with a
    /// new life comes what is observed at its beginning.
    Asked {
        /// The record as it is now.
        record: Arc<Record>,
        /// The version on which this was planned; 0: nobody was there.
        expected: u64,
    },
    /// This was observed. One that is evicted leaves the live part of a store and is kept for its probation.
    Observed(Arc<Record>),
    /// An owner or operator asked for this record to be gone.
    Removed {
        /// The record as it was.
        record: Arc<Record>,
        /// The version of the removal.
        version: u64,
        /// The version on which this was planned.
        expected: u64,
    },
    /// Its probation is over. Its owner may have asked for something since, or another server may have seen it well; then
    /// it is not gone.
    Forgotten {
        /// The record as it was.
        record: Arc<Record>,
        /// The version up to which it is gone.
        version: u64,
    },
}

/// What stays of a record that is gone: nothing up to this version comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose.
    pub key: Key,
    /// That of the removal.
    pub version: u64,
}

/// A record as it stands in a store, as far as the rules go.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What was asked for.
    pub asked: Asked,
    /// Whether it is on probation.
    pub evicted: bool,
}

/// What a store does with a change, given how the record stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// This part of the record is written.
    Put(Part),
    /// The record is gone, and so is everything up to this version.
    Bury(u64),
    /// It is about something that is no longer so. Nobody need hear of it.
    Leave,
    /// The store knows a later request. Whoever asked has to look at it first.
    Conflict,
}

/// What is written of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: it is new, or in a new life.
    All,
    /// What was asked for, and what everybody sees of it: it was drained, or is no longer.
    Asked,
    /// What was asked for alone: nothing of it flips what everybody sees.
    Updated,
    /// What was observed, and what everybody sees of it.
    Observed,
}

// === impl Change ===

impl Change {
    /// Whom it is about.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        match self {
            Self::Asked { record, .. } | Self::Removed { record, .. } | Self::Forgotten { record, .. } => record,
            Self::Observed(record) => record,
        }
    }

    /// Which record it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        self.record().key()
    }

    /// The rules of all stores. `known`: the record as it stands; `gone`: the version of its tombstone, or 0; `same`: whether
    /// the record as it stands says the same as this change, which is asked where their versions are equal.
    #[must_use]
    pub fn ruling(&self, known: Option<Known>, gone: u64, same: impl FnOnce() -> bool) -> Ruling {
        let same_life = known.is_some_and(|known| known.asked.incarnation == self.record().asked.incarnation);
        match (self, known) {
            (Self::Asked { record, expected }, Some(Known { asked, .. })) => {
                // Writing the same once more does no harm. Two servers may be asked in the same millisecond.
                let later = asked.version > *expected && (asked.version != record.asked.version || !same());
                match same_life {
                    _ if later => Ruling::Conflict,
                    false => Ruling::Put(Part::All),
                    true if asked.draining == record.asked.draining => Ruling::Put(Part::Updated),
                    true => Ruling::Put(Part::Asked),
                }
            }
            (Self::Asked { record, expected }, None) => {
                let later = gone >= record.asked.version || (*expected > 0 && gone > *expected);
                if later { Ruling::Conflict } else { Ruling::Put(Part::All) }
            }
            (Self::Observed(_), Some(_)) if same_life => Ruling::Put(Part::Observed),
            // It answered at the very end of its probation, and the store was faster to drop it.
            (Self::Observed(record), None) if !record.is_evicted() && gone < record.asked.version => {
                Ruling::Put(Part::All)
            }
            (Self::Observed(_), _) => Ruling::Leave,
            (Self::Removed { expected, .. }, Some(known)) if known.asked.version > *expected => Ruling::Conflict,
            (Self::Forgotten { record, .. }, Some(known))
                if known.asked.version > record.asked.version || !same_life || !known.evicted =>
            {
                Ruling::Leave
            }
            (Self::Removed { version, .. } | Self::Forgotten { version, .. }, _) => Ruling::Bury((*version).max(gone)),
        }
    }

    /// What stays of the record, if it is gone afterwards: one that is forgotten may be left where it is.
    #[must_use]
    pub fn tombstone(&self) -> Option<Tombstone> {
        match self {
            Self::Asked { .. } | Self::Observed(_) => None,
            Self::Removed { record, version, .. } | Self::Forgotten { record, version } => {
                Some(Tombstone { key: record.key(), version: *version })
            }
        }
    }

    /// Whether it says that a probation is over, which somebody else may know better.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        matches!(self, Self::Forgotten { .. })
    }

    /// Whether the one who wrote this must hear of it when a store does not take it.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Asked { .. } | Self::Removed { .. })
    }
}

// === impl Known ===

impl From<&Record> for Known {
    fn from(record: &Record) -> Self {
        Self { asked: record.asked, evicted: record.is_evicted() }
    }
}

// === impl Part ===

impl Part {
    /// What a store has once it wrote this part of `record` to what it had before.
    #[must_use]
    pub fn merged(self, record: &Arc<Record>, known: Option<&Arc<Record>>) -> Arc<Record> {
        match (self, known) {
            (Self::Asked | Self::Updated, Some(known)) => Arc::new(record.observed_as(known)),
            (Self::Observed, Some(known)) => Arc::new(known.observed_as(record)),
            (Self::All, _) | (_, None) => Arc::clone(record),
        }
    }
}
