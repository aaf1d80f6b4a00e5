//! The namespaces: found without waiting, counted as they fill and empty, dropped once they have been empty for a while.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use roundsman_protocol::Namespace;

use crate::{log::LogBudget, shards::Shards, table::Table};

/// How many empty namespaces are dropped when one is added.
const DROPPED_AT_ONCE: usize = 64;

/// All namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces {
    tables: Shards<Namespace, Arc<Table>>,
    /// Those that became empty and are still there.
    empty: Mutex<BTreeSet<Namespace>>,
    /// How many have an instance.
    populated: AtomicUsize,
    /// Where the revisions of a namespace begin: past those of every namespace that became empty and was dropped, so
    /// that a cursor from its former life is never taken for one of its new life.
    retired: AtomicU64,
    log_capacity: usize,
    log_budget: Arc<LogBudget>,
}

// === impl Namespaces ===

impl Namespaces {
    pub(crate) fn new(log_capacity: usize, log_bytes: usize) -> Self {
        Self {
            tables: Shards::default(),
            empty: Mutex::default(),
            populated: AtomicUsize::new(0),
            retired: AtomicU64::new(0),
            log_capacity,
            log_budget: Arc::new(LogBudget::new(log_bytes)),
        }
    }

    /// Calls `f` with a namespace's table, without cloning it.
    pub(crate) fn with<T>(&self, namespace: &Namespace, f: impl FnOnce(&Table) -> T) -> Option<T> {
        self.tables.with(namespace, |table| f(table))
    }

    pub(crate) fn get(&self, namespace: &Namespace) -> Option<Arc<Table>> {
        self.tables.get(namespace)
    }

    /// Those that have an instance, in no order.
    pub(crate) fn populated(&self) -> Vec<(Namespace, Arc<Table>)> {
        let mut tables = self.tables.entries();
        tables.retain(|(_, table)| !table.is_empty());
        tables
    }

    /// How many have an instance.
    pub(crate) fn populated_len(&self) -> usize {
        self.populated.load(Ordering::Relaxed)
    }

    /// Where a namespace stands that is not there.
    pub(crate) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    /// A namespace's table, added if need be. Only the writer may call this.
    pub(crate) fn get_or_add(&self, namespace: &Namespace) -> Arc<Table> {
        if let Some(table) = self.get(namespace) {
            return table;
        }
        // Not when they become empty: their watchers still want to be told who left and why.
        self.drop_empty();
        let table = Arc::new(Table::new(self.retired(), self.log_capacity, Arc::clone(&self.log_budget)));
        self.tables.insert(namespace.clone(), Arc::clone(&table));
        table
    }

    /// Counts a namespace that filled or emptied.
    pub(crate) fn changed(&self, namespace: &Namespace, was_empty: bool, is_empty: bool) {
        match (was_empty, is_empty) {
            (true, false) => drop(self.populated.fetch_add(1, Ordering::Relaxed)),
            (false, true) => drop(self.populated.fetch_sub(1, Ordering::Relaxed)),
            (true, true) | (false, false) => {}
        }
        if is_empty {
            self.lock().insert(namespace.clone());
        }
    }

    fn drop_empty(&self) {
        let mut empty = self.lock();
        for _ in 0..DROPPED_AT_ONCE {
            let Some(namespace) = empty.pop_first() else { return };
            if let Some(table) = self.get(&namespace).filter(|table| table.is_empty()) {
                self.retired.fetch_max(table.revision(), Ordering::AcqRel);
                self.tables.remove(&namespace);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Namespace>> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
