//! Taking in what a store held.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use roundsman_protocol::Namespace;

use super::Registry;
use crate::{
    edit::{Edit, Effect},
    record::Record,
    table::Table,
};

/// What a store held, as far as it was read. Nobody sees it before [`Loading::finish`]: to show each part as it comes
/// would take longer than to read it.
#[derive(Debug)]
pub struct Loading<'r> {
    registry: &'r Registry,
    namespaces: HashMap<Namespace, TakenIn>,
    ghosts: Vec<Arc<Record>>,
}

/// What was taken into a namespace.
#[derive(Debug)]
struct TakenIn {
    table: Arc<Table>,
    was_empty: bool,
    effects: Vec<Effect>,
}

/// What became of records out of a store.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All that are there now.
    pub records: Vec<Arc<Record>>,
    /// Those that are not: another one that was asked for later has their address.
    pub ghosts: Vec<Arc<Record>>,
}

// === impl Registry ===

impl Registry {
    /// Begins to take in what a store held, before anybody reads.
    #[must_use]
    pub fn loading(&self) -> Loading<'_> {
        Loading { registry: self, namespaces: HashMap::new(), ghosts: Vec::new() }
    }

    /// Takes in all that a store held.
    pub fn load(&self, records: Vec<Record>) -> Loaded {
        let mut loading = self.loading();
        loading.add(records);
        loading.finish()
    }
}

// === impl Loading ===

impl Loading<'_> {
    /// Takes in some more of them, in whatever order. Those whose address belongs to another one that was asked for later
    /// are not taken in, or taken out again. To take in the same once more makes no difference.
    pub fn add(&mut self, records: Vec<Record>) {
        let mut by_namespace: HashMap<Namespace, Vec<Edit>> = HashMap::new();
        for record in records {
            let namespace = &record.instance.namespace;
            let edits = match by_namespace.get_mut(namespace) {
                Some(edits) => edits,
                None => by_namespace.entry(namespace.clone()).or_default(),
            };
            edits.push(Edit::Adopt { record: Arc::new(record), seen_later: false });
        }
        for (namespace, edits) in by_namespace {
            self.take_in(namespace, &edits);
        }
    }

    fn take_in(&mut self, namespace: Namespace, edits: &[Edit]) {
        edits.iter().filter_map(Edit::version).for_each(|version| self.registry.saw_version(version));
        let TakenIn { table, effects, .. } = match self.namespaces.entry(namespace) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let table = self.registry.namespaces.get_or_add(place.key());
                place.insert(TakenIn { was_empty: table.is_empty(), table, effects: Vec::new() })
            }
        };
        let mut new = table.take_in(edits.iter());
        let left = new.iter().filter(|effect| effect.after.is_none());
        self.ghosts.extend(left.filter_map(|effect| effect.before.clone()));
        if new.iter().filter(|effect| effect.after.is_some()).count() < edits.len() {
            let without = edits.iter().filter_map(|edit| match edit {
                Edit::Adopt { record, .. } if table.find(&record.instance.id).is_none() => Some(Arc::clone(record)),
                _ => None,
            });
            self.ghosts.extend(without);
        }
        effects.append(&mut new);
    }

    /// Shows readers what was taken in.
    #[must_use]
    pub fn finish(self) -> Loaded {
        let Self { registry, namespaces, ghosts } = self;
        for (namespace, TakenIn { table, was_empty, effects }) in namespaces {
            if !effects.is_empty() {
                let before = table.show_loaded(&effects);
                registry.account(&table, &effects);
                registry.wake(&namespace, before, &effects);
            }
            registry.namespaces.changed(&namespace, was_empty, table.is_empty());
        }
        Loaded { records: registry.records(), ghosts }
    }
}
