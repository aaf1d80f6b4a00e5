//! What comes from a store that others reach as well, compared with what memory holds.

use std::sync::Arc;

use roundsman_registry::{Edit, Record, Tombstone};
use roundsman_store::{Aside, Position, Snapshot, Standing};
use tokio::sync::oneshot;

use super::Task;

// === impl Task ===

impl Task {
    /// Takes over what another server committed. It is in the store already. `overtook`: it stands in the way of a request.
    pub(super) fn adopt(&mut self, standing: Standing, overtook: bool) {
        let edit = match standing {
            // What was on its way when the removal was committed, or what came back: then it is removed again.
            Standing::There(record) if self.is_removed(&record) => {
                if overtook && self.registry.find(&record.key()).is_none() {
                    let version = self.tombstones.version(&record.key());
                    self.unwritten.back(record, version);
                }
                return;
            }
            Standing::There(record) => self.adoption(record),
            Standing::Gone(tombstone) => {
                self.tombstones.add(tombstone.clone(), self.clock.now());
                Edit::Bury(tombstone)
            }
        };
        self.take_in(&[edit]);
    }

    /// Carries out what comes from the store. Where two came to one address on different servers, the one that was asked for
    /// later stays, on all of them, and the other leaves the store as well.
    fn take_in(&mut self, edits: &[Edit]) {
        let effects = self.apply(edits);
        self.follow(&effects);
        let mut ghosts: Vec<Arc<Record>> = Vec::new();
        for effect in effects {
            ghosts.extend(effect.before.filter(|_| effect.after.is_none()));
        }
        for edit in edits {
            if let Edit::Adopt { record, .. } = edit {
                ghosts.push(Arc::clone(record));
            }
        }
        let now = self.clock.now();
        for ghost in ghosts {
            let key = ghost.key();
            if self.registry.find(&key).is_none() && !self.is_removed(&ghost) {
                let version = ghost.asked.version;
                self.tombstones.add(Tombstone { key, version }, now);
                self.unwritten.back(ghost, version);
            }
        }
    }

    fn is_removed(&self, record: &Record) -> bool {
        record.asked.version <= self.tombstones.version(&record.key())
    }

    fn adoption(&self, record: Arc<Record>) -> Edit {
        let key = record.key();
        let seen_later = self.unwritten.has(&key) || self.writing.contains(&key);
        Edit::Adopt { record, seen_later }
    }

    /// Takes over what the store holds. It was read while nothing of ours was on its way, so whatever differs was written by
    /// another server, or observed here since. What the store does not have may be what it lost; only what it says was
    /// removed is taken away. What was removed here and is there again is removed from the store with the next batch.
    pub(super) fn take_over(&mut self, snapshot: Snapshot, aside: &Aside, reply: oneshot::Sender<Position>) {
        self.state.damaged(&snapshot.damaged, aside);
        let now = self.clock.now();
        let mut edits: Vec<Edit> = snapshot.removed.iter().cloned().map(Edit::Bury).collect();
        snapshot.removed.into_iter().for_each(|tombstone| self.tombstones.add(tombstone, now));
        for record in snapshot.records {
            let (key, record) = (record.key(), Arc::new(record));
            if !self.is_removed(&record) {
                edits.push(self.adoption(record));
            } else if self.registry.find(&key).is_none() {
                tracing::warn!(namespace = %key.namespace, id = %key.id, "the store has a record that was removed; it is removed again");
                let version = self.tombstones.version(&key);
                self.unwritten.back(record, version);
                self.state.repaired(1);
            }
        }
        self.take_in(&edits);
        // A follower that is gone needs no answer.
        drop(reply.send(snapshot.position));
    }

    /// Has records written that the store should have and has not: what a client was told holds.
    pub(super) fn write_back(&mut self, missing: Vec<Arc<Record>>) {
        if missing.is_empty() {
            return;
        }
        let example = missing.first().map(|record| record.instance.id.to_string());
        tracing::warn!(
            records = missing.len(),
            example,
            "the store lost records that nobody removed; they are written again"
        );
        self.state.repaired(missing.len());
        for record in missing {
            self.unwritten.lost(record);
        }
        self.state.unwritten(self.unwritten.len());
    }
}
