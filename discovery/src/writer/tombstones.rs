//! What is gone, for as long as anybody may remember it.
//!
//! A removal that was acknowledged holds, whatever a store says later: an emptied one that another server filled again,
//! a restored backup, or what another server had on its way when the removal was committed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Change, Key, Record};
use roundsman_store::Position;
use tokio::time::Instant;

/// How long a removal is remembered, and how many are.
const KEPT: Duration = Duration::from_secs(3_600);
const MOST: usize = 100_000;

/// The removals of the last hour.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    of: HashMap<Key, Tombstone>,
    /// In the order of their age. Some are no longer in the map, or there again with a later time.
    order: VecDeque<(Instant, Key)>,
}

#[derive(Debug)]
struct Tombstone {
    at: Instant,
    /// Which registration was removed.
    registered_at: Timestamp,
    /// Where the removal stands in the store's history.
    position: Arc<Position>,
}

/// What a tombstone says of a record that comes from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it is news.
    News,
    /// It is older than the removal, which the store knows: there is nothing to do.
    Old,
    /// It is what was removed, and there again.
    Back,
}

// === impl Tombstones ===

impl Tombstones {
    /// Takes in what was committed at `position`. A store without a history is ours alone: nobody brings anything back.
    pub(crate) fn committed(&mut self, changes: &[Change], position: Position, now: Instant) {
        if position == Position::default() {
            return;
        }
        let position = Arc::new(position);
        for change in changes {
            match change {
                Change::Put(record) => drop(self.of.remove(&record.key())),
                Change::Remove(record) => self.add(record, now, Arc::clone(&position)),
            }
        }
        self.forget_the_old(now);
    }

    fn add(&mut self, record: &Record, at: Instant, position: Arc<Position>) {
        let (key, registered_at) = (record.key(), record.instance.registered_at);
        self.order.push_back((at, key.clone()));
        self.of.insert(key, Tombstone { at, registered_at, position });
    }

    fn forget_the_old(&mut self, now: Instant) {
        while let Some((at, key)) = self.order.front() {
            if self.order.len() <= MOST && now.duration_since(*at) < KEPT {
                return;
            }
            if self.of.get(key).is_some_and(|tombstone| tombstone.at == *at) {
                self.of.remove(key);
            }
            self.order.pop_front();
        }
    }

    /// What to think of a record that the store has, or had, at `position`.
    ///
    /// The same registration is gone for good, however late somebody writes it. Another one under the same id is news when it
    /// was written after the removal; where that cannot be told, because the store lost its history, when it registered later.
    pub(crate) fn verdict(&self, record: &Record, position: &Position) -> Verdict {
        let Some(tombstone) = self.of.get(&record.key()) else { return Verdict::News };
        let before = position.is_before(&tombstone.position, &record.instance.namespace);
        match before {
            Some(true) => Verdict::Old,
            _ if record.instance.registered_at == tombstone.registered_at => Verdict::Back,
            Some(false) => Verdict::News,
            None if record.instance.registered_at < tombstone.registered_at => Verdict::Back,
            None => Verdict::News,
        }
    }

    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        (self.of.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::Registration;

    use super::*;

    fn record(id: usize, registered_at: u64) -> Arc<Record> {
        let registration = Registration::new("db".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
        let key = Key { namespace: "default".parse().unwrap(), id: format!("db-{id}").parse().unwrap() };
        Arc::new(Record::registered(&key, &registration, 0, Timestamp::from_millis(registered_at)))
    }

    fn at(generation: &str, sequence: u64) -> Position {
        Position(format!(r#"{{"default":{{"generation":"{generation}","sequence":{sequence}}}}}"#))
    }

    #[test]
    fn what_was_removed_stays_so_and_what_is_new_is_news() {
        let mut tombstones = Tombstones::default();
        let said =
            |tombstones: &Tombstones, registered, position| tombstones.verdict(&record(1, registered), &position);
        assert_eq!(said(&tombstones, 7, at("a", 1)), Verdict::News);
        tombstones.committed(&[Change::Remove(record(1, 7))], at("a", 5), Instant::now());
        assert_eq!(said(&tombstones, 7, at("a", 4)), Verdict::Old);
        assert_eq!(said(&tombstones, 8, at("a", 4)), Verdict::Old);
        assert_eq!(said(&tombstones, 7, at("a", 6)), Verdict::Back);
        assert_eq!(said(&tombstones, 6, at("a", 6)), Verdict::News, "written later, by a clock that is behind");
        // After the store lost everything.
        assert_eq!(said(&tombstones, 7, at("b", 1)), Verdict::Back);
        assert_eq!(said(&tombstones, 6, at("b", 1)), Verdict::Back, "a still older one, out of a backup");
        assert_eq!(said(&tombstones, 8, at("b", 1)), Verdict::News);
        // Registered again here.
        tombstones.committed(&[Change::Put(record(1, 9))], at("b", 2), Instant::now());
        assert_eq!(said(&tombstones, 7, at("b", 1)), Verdict::News);
    }

    #[test]
    fn they_are_bounded_in_number_and_in_time() {
        let (mut tombstones, now) = (Tombstones::default(), Instant::now());
        let all: Vec<_> = (0..MOST + 10).map(|id| Change::Remove(record(id, 1))).collect();
        tombstones.committed(&all, at("a", 1), now);
        assert_eq!(tombstones.len(), (MOST, MOST));
        tombstones.committed(&[Change::Remove(record(1, 1))], Position::default(), now);
        assert_eq!(tombstones.len(), (MOST, MOST), "an embedded store needs none");
        tombstones.committed(&[Change::Remove(record(1, 1))], at("a", 2), now + KEPT);
        assert_eq!(tombstones.len(), (1, 1));
    }
}
