//! What a set of records adds up to, kept up with each change instead of counted.

use roundsman_protocol::{Instance, InstanceStatus, Scope};

use crate::record::Record;

/// Sums over a set of records. All of them can be taken back, so that a change costs one addition and one subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passing: u32,
    pub(crate) suspect: u32,
    pub(crate) starting: u32,
    pub(crate) draining: u32,
    pub(crate) evicted: u32,
    /// The wrapping sums of the fingerprints: of those handed out, of the others that are registered, and of those on
    /// probation.
    hashes: [u64; 3],
    /// The weights of those handed out.
    weights: u64,
    /// The squares of the same weights: they tell whether all weigh the same.
    squares: u64,
    /// What the records take in memory, about.
    bytes: usize,
}

// === impl Tally ===

impl Tally {
    /// That of one record.
    pub(crate) fn of(record: &Record) -> Self {
        let mut tally = Self { bytes: record.bytes(), ..Self::default() };
        let Instance { status, weight, .. } = &*record.instance;
        let (count, group) = match status {
            InstanceStatus::Passing => (&mut tally.passing, 0),
            InstanceStatus::Suspect => (&mut tally.suspect, 0),
            InstanceStatus::Starting => (&mut tally.starting, 1),
            InstanceStatus::Draining => (&mut tally.draining, 1),
            InstanceStatus::Evicted => (&mut tally.evicted, 2),
        };
        *count = 1;
        if let Some(hash) = tally.hashes.get_mut(group) {
            *hash = record.fingerprint;
        }
        if status.is_available() {
            let weight = u64::from(*weight);
            (tally.weights, tally.squares) = (weight, weight * weight);
        }
        tally
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, u32::wrapping_add, u64::wrapping_add, usize::wrapping_add);
    }

    pub(crate) fn sub(&mut self, other: &Self) {
        self.combine(other, u32::wrapping_sub, u64::wrapping_sub, usize::wrapping_sub);
    }

    fn combine(
        &mut self,
        other: &Self,
        count: fn(u32, u32) -> u32,
        sum: fn(u64, u64) -> u64,
        bytes: fn(usize, usize) -> usize,
    ) {
        self.passing = count(self.passing, other.passing);
        self.suspect = count(self.suspect, other.suspect);
        self.starting = count(self.starting, other.starting);
        self.draining = count(self.draining, other.draining);
        self.evicted = count(self.evicted, other.evicted);
        for (hash, other) in self.hashes.iter_mut().zip(other.hashes) {
            *hash = sum(*hash, other);
        }
        self.weights = sum(self.weights, other.weights);
        self.squares = sum(self.squares, other.squares);
        self.bytes = bytes(self.bytes, other.bytes);
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.in_scope(Scope::All).0).unwrap_or(usize::MAX)
    }

    /// How many are handed out.
    pub(crate) fn available(&self) -> u32 {
        self.passing + self.suspect
    }

    /// How many are registered, those on probation not counted.
    pub(crate) fn registered(&self) -> u32 {
        self.available() + self.starting + self.draining
    }

    /// What those handed out weigh together.
    pub(crate) fn weights(&self) -> u64 {
        self.weights
    }

    /// Whether all that are handed out weigh the same: just then the square of the sum is as large as it can be.
    pub(crate) fn is_even(&self) -> bool {
        u128::from(self.squares) * u128::from(self.available()) == u128::from(self.weights) * u128::from(self.weights)
    }

    /// What they take in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are in a scope, and the wrapping sum of their fingerprints.
    pub(crate) fn in_scope(&self, scope: Scope) -> (u64, u64) {
        let [available, hidden, evicted] = self.hashes;
        match scope {
            Scope::Available => (u64::from(self.available()), available),
            Scope::Registered => (u64::from(self.registered()), available.wrapping_add(hidden)),
            Scope::All => (
                u64::from(self.registered()) + u64::from(self.evicted),
                available.wrapping_add(hidden).wrapping_add(evicted),
            ),
        }
    }
}
