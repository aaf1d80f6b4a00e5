//! What the store has to be told, and was not yet.

use std::{collections::HashMap, sync::Arc};

use roundsman_registry::{Change, Key, Record, Registry};

/// What the store has to be told of each record.
#[derive(Debug, Default)]
pub(crate) struct Unwritten(HashMap<Key, Due>);

#[derive(Debug)]
struct Due {
    why: Why,
    /// The record as last known.
    record: Arc<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Something was observed of it.
    Seen,
    /// The store lost it, and has to have all of it again.
    Lost,
    /// The store has it, although it was removed with this version.
    Back(u64),
}

// === impl Unwritten ===

impl Unwritten {
    /// Something was observed of a record.
    pub(crate) fn seen(&mut self, record: &Arc<Record>) {
        let due = self.0.entry(record.key()).or_insert_with(|| Due { why: Why::Seen, record: Arc::clone(record) });
        due.record = Arc::clone(record);
    }

    /// The store lost a record that nobody removed.
    pub(crate) fn lost(&mut self, record: Arc<Record>) {
        let due = self.0.entry(record.key()).or_insert(Due { why: Why::Lost, record });
        due.why = Why::Lost;
    }

    /// The store has a record that was removed with this version.
    pub(crate) fn back(&mut self, record: Arc<Record>, version: u64) {
        self.0.insert(record.key(), Due { why: Why::Back(version), record });
    }

    /// Takes back what was not written. What came since is later, but may be less.
    pub(crate) fn put_back(&mut self, other: Self) {
        for (key, due) in other.0 {
            let known = self.0.entry(key).or_insert(Due { why: due.why, record: due.record });
            if due.why != Why::Seen {
                known.why = due.why;
            }
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out those that `wanted` says.
    pub(crate) fn take(&mut self, mut wanted: impl FnMut(&Key) -> bool) -> Self {
        Self(self.0.extract_if(|key, _| wanted(key)).collect())
    }

    /// What a store has to be told, given how things stand here now.
    pub(crate) fn changes(&self, registry: &Registry) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.0.len());
        for (key, due) in &self.0 {
            match (due.why, registry.find(key)) {
                (Why::Back(version), None) => {
                    changes.push(Change::Removed { record: Arc::clone(&due.record), version, expected: version });
                }
                (Why::Lost, Some(record)) => {
                    let expected = record.asked.version;
                    changes.push(Change::Asked { record: Arc::clone(&record), expected });
                    changes.push(Change::Observed(record));
                }
                (Why::Seen | Why::Back(_), Some(record)) => changes.push(Change::Observed(record)),
                // It was removed since, and that is written by itself; or its probation is over.
                (Why::Lost | Why::Seen, None) => changes.push(Change::Forgotten(Arc::clone(&due.record))),
            }
        }
        changes
    }
}
