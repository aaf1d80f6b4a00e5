//! What is gone, for as long as anybody may remember it.
//!
//! A removal that was acknowledged holds, whatever a store says later: an emptied one that another server filled again, a
//! restored backup, or what another server had on its way when the removal was committed.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use roundsman_protocol::Timestamp;

use crate::edit::{Key, Tombstone};

/// The removals of the last hour.
#[derive(Debug, Default)]
pub struct Tombstones {
    of: HashMap<Key, u64>,
    /// In the order in which they came. Some are in the map with a later version.
    order: VecDeque<Tombstone>,
}

// === impl Tombstones ===

impl Tombstones {
    /// How long a removal is remembered. Versions are about the time in milliseconds.
    pub const KEPT: Duration = Duration::from_secs(3_600);
    /// How many are.
    pub const MOST: usize = 100_000;

    /// Takes in a removal.
    pub fn add(&mut self, tombstone: Tombstone, now: Timestamp) {
        if tombstone.version > self.version(&tombstone.key) {
            self.of.insert(tombstone.key.clone(), tombstone.version);
            self.order.push_back(tombstone);
        }
        self.forget_the_old(now);
    }

    /// Up to which version a record is gone; 0 when nothing is known of it.
    #[must_use]
    pub fn version(&self, key: &Key) -> u64 {
        self.of.get(key).copied().unwrap_or_default()
    }

    /// All of them, for a store that has to be filled again.
    #[must_use]
    pub fn all(&self) -> Vec<Tombstone> {
        self.of.iter().map(|(key, version)| Tombstone { key: key.clone(), version: *version }).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The first version that is still remembered at `now`.
    #[must_use]
    pub fn oldest(now: Timestamp) -> u64 {
        let kept = u64::try_from(Self::KEPT.as_millis()).unwrap_or(u64::MAX);
        now.as_millis().saturating_sub(kept)
    }

    fn forget_the_old(&mut self, now: Timestamp) {
        let oldest = Self::oldest(now);
        while let Some(first) = self.order.front() {
            if self.order.len() <= Self::MOST && first.version >= oldest {
                return;
            }
            if self.of.get(&first.key) == Some(&first.version) {
                self.of.remove(&first.key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(id: usize, version: u64) -> Tombstone {
        let key = Key { namespace: "default".parse().unwrap(), id: format!("product-{id}").parse().unwrap() };
        Tombstone { key, version }
    }

    #[test]
    fn the_latest_removal_counts() {
        let (mut tombstones, now) = (Tombstones::default(), Timestamp::default());
        for version in [5, 9, 7] {
            tombstones.add(tombstone(1, version), now);
        }
        assert_eq!(tombstones.version(&tombstone(1, 0).key), 9);
        assert_eq!(tombstones.version(&tombstone(2, 0).key), 0);
        assert_eq!(tombstones.all(), [tombstone(1, 9)]);
    }

    #[test]
    fn they_are_bounded_in_number_and_in_time() {
        let (mut tombstones, now) = (Tombstones::default(), Timestamp::from_millis(1_000));
        for id in 0..Tombstones::MOST + 10 {
            tombstones.add(tombstone(id, 1_000), now);
        }
        assert_eq!((tombstones.len(), tombstones.order.len()), (Tombstones::MOST, Tombstones::MOST));
        assert_eq!(tombstones.version(&tombstone(9, 0).key), 0, "the oldest ones are forgotten");
        let later = now.plus(Tombstones::KEPT).plus(Duration::from_millis(1));
        tombstones.add(tombstone(1, later.as_millis()), later);
        assert_eq!((tombstones.len(), tombstones.order.len()), (1, 1));
    }
}
