//! A rolling look at whether the store has what memory holds.

use std::sync::Arc;

use roundsman_registry::{Key, Record, Registry};

use super::unwritten::Unwritten;

/// How many records are looked for at a time.
const AT_A_TIME: usize = 1_000;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    left: Vec<Key>,
}

// === impl Audit ===

impl Audit {
    /// The next records to look for, as the store should have them: all but those which a store drops by itself when their
    /// probation is over.
    pub(crate) fn next(&mut self, registry: &Registry, unwritten: &Unwritten) -> Vec<Arc<Record>> {
        if self.left.is_empty() {
            self.left = registry.records().iter().map(|record| record.key()).collect();
        }
        let turn = self.left.split_off(self.left.len().saturating_sub(AT_A_TIME));
        let known = turn.iter().filter(|key| !unwritten.has(key)).filter_map(|key| registry.find(key));
        known.filter(|record| !record.expires_by_itself()).collect()
    }
}
