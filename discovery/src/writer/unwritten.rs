//! What the store has to be told, and was not yet.

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::Timestamp;
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
    /// Its probation is over. `unseen`: the store does not know yet that it was evicted.
    Forgotten { unseen: bool },
}

// === impl Unwritten ===

impl Unwritten {
    /// Something was observed of a record.
    pub(crate) fn seen(&mut self, record: &Arc<Record>) {
        let due = self.0.entry(record.key()).or_insert_with(|| Due { why: Why::Seen, record: Arc::clone(record) });
        due.record = Arc::clone(record);
        if due.why != Why::Lost {
            due.why = Why::Seen;
        }
    }

    /// The probation of a record is over.
    pub(crate) fn forgotten(&mut self, record: &Arc<Record>) {
        let unseen = self.0.get(&record.key()).is_some_and(|due| matches!(due.why, Why::Seen | Why::Lost));
        let due = Due { why: Why::Forgotten { unseen }, record: Arc::clone(record) };
        self.0.insert(record.key(), due);
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
            match (&mut known.why, due.why) {
                (Why::Forgotten { unseen }, Why::Seen | Why::Lost) => *unseen = true,
                (Why::Seen, why @ (Why::Lost | Why::Back(_))) => known.why = why,
                _ => {}
            }
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
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

    /// What a store has to be told, with what is asked for: first what must not be there, then the requests, then what was
    /// observed of the lives that they leave.
    pub(crate) fn around(&self, requests: Vec<Change>, registry: &Registry, now: Timestamp) -> Vec<Change> {
        let asked: HashMap<Key, Option<Arc<Record>>> = requests
            .iter()
            .map(|change| (change.key(), matches!(change, Change::Asked { .. }).then(|| Arc::clone(change.record()))))
            .collect();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for (key, Due { why, record }) in &self.0 {
            let (planned, known) = (asked.get(key), registry.find(key));
            match (*why, known) {
                (Why::Back(version), None) => {
                    first.push(Change::Removed { record: Arc::clone(record), version, expected: version });
                }
                (Why::Forgotten { unseen }, None) => {
                    last.extend(unseen.then(|| Change::Observed(Arc::clone(record))));
                    let version = registry.next_version(now);
                    last.push(Change::Forgotten { record: Arc::clone(record), version });
                }
                // It was removed since, and that is written by itself.
                (Why::Lost | Why::Seen, None) => {}
                (why, Some(known)) => {
                    if why == Why::Lost && planned.is_none() {
                        let expected = known.asked.version;
                        last.push(Change::Asked { record: Arc::clone(&known), expected });
                    }
                    // As the request leaves it, so that what everybody sees of it follows from both.
                    last.push(Change::Observed(planned.cloned().flatten().unwrap_or(known)));
                }
            }
        }
        first.into_iter().chain(requests).chain(last).collect()
    }
}
