//! What comes from a store that others reach as well, compared with what memory holds.

use std::sync::Arc;

use roundsman_registry::{Change, Edit, Record};
use roundsman_store::{Aside, Foreign, Position, Snapshot};
use tokio::{sync::oneshot, time::Instant};

use super::{Task, tombstones::Verdict};

// === impl Task ===

impl Task {
    /// Takes over what another server committed. It is in the store already.
    pub(super) fn adopt(&mut self, foreign: Foreign) {
        let edit = match foreign.change {
            Change::Put(record) => {
                if !self.is_news(&record, &foreign.position) {
                    return;
                }
                Edit::Adopt { record, incarnation: self.registry.next_incarnation() }
            }
            Change::Remove(record) => {
                let key = record.key();
                self.tombstones.committed(&[Change::Remove(record)], foreign.position, Instant::now());
                Edit::Remove { key, reason: "removed by another server".into() }
            }
        };
        let effects = self.apply(&[edit]);
        self.follow(&effects, true);
    }

    /// Whether a record that the store has may be taken over. One that was removed and is there again is removed
    /// from the store with the next batch.
    fn is_news(&mut self, record: &Arc<Record>, position: &Position) -> bool {
        match self.tombstones.verdict(record, position) {
            Verdict::News => true,
            Verdict::Old => false,
            Verdict::Back => {
                let key = record.key();
                if self.registry.find(&key).is_none() {
                    tracing::warn!(namespace = %key.namespace, id = %key.id, "the store has a record that was removed; it is removed again");
                    self.unwritten.insert(key, Arc::clone(record));
                    self.state.repaired(1);
                }
                false
            }
        }
    }

    /// Takes over what the store holds. It was read while nothing of ours was on its way, so whatever differs was written by
    /// another server, or observed here since. Nothing is taken away: what the store does not have may be what it lost.
    pub(super) fn take_over(&mut self, snapshot: Snapshot, aside: &Aside, reply: oneshot::Sender<Position>) {
        self.state.damaged(&snapshot.damaged, aside);
        let mut edits = Vec::new();
        for record in snapshot.records {
            let (key, record) = (record.key(), Arc::new(record));
            let known = self.registry.find(&key);
            if self.unwritten.contains_key(&key) || known.as_deref() == Some(&*record) {
                continue;
            }
            if self.is_news(&record, &snapshot.position) {
                edits.push(Edit::Adopt { record, incarnation: self.registry.next_incarnation() });
            }
        }
        let effects = self.apply(&edits);
        self.follow(&effects, true);
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
            self.unwritten.entry(record.key()).or_insert(record);
        }
        self.state.unwritten(self.unwritten.len());
    }
}
