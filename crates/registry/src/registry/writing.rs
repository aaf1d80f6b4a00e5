//! Changing the registry: one writer at a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use roundsman_protocol::{Host, Namespace, ServiceName};

use super::Registry;
use crate::{
    draft::{Draft, Limits},
    edit::{Edit, Effect},
    record::Record,
    table::{Applied, Table},
};

impl Registry {
    /// Starts to plan a batch.
    #[must_use]
    pub fn draft(&self, limits: Limits) -> Draft<'_> {
        Draft::new(self, limits)
    }

    /// A number for a new life of an instance, never given out before.
    #[must_use]
    pub fn next_incarnation(&self) -> u64 {
        self.incarnations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes in what a store held, before anybody reads.
    pub fn load(&self, records: Vec<Record>) -> Vec<Arc<Record>> {
        let adopt = |record| Edit::Adopt { record: Arc::new(record), incarnation: self.next_incarnation() };
        let edits: Vec<Edit> = records.into_iter().map(adopt).collect();
        let effects = self.carry_out(&edits, false);
        effects.into_iter().filter_map(|effect| effect.after).collect()
    }

    /// Carries edits out, shows them to readers and wakes the watchers whom they concern.
    pub fn apply(&self, edits: &[Edit]) -> Vec<Effect> {
        let effects = self.carry_out(edits, true);
        self.recent.remember(&effects);
        effects
    }

    fn carry_out(&self, edits: &[Edit], logged: bool) -> Vec<Effect> {
        let mut by_namespace: BTreeMap<Namespace, Vec<&Edit>> = BTreeMap::new();
        for edit in edits {
            by_namespace.entry(edit.key().namespace).or_default().push(edit);
        }
        let mut all = Vec::new();
        for (namespace, edits) in by_namespace {
            let table = self.namespaces.get_or_add(&namespace);
            let was_empty = table.is_empty();
            let Applied { effects, before } = table.apply(edits.into_iter(), logged);
            self.namespaces.changed(&namespace, was_empty, table.is_empty());
            if effects.is_empty() {
                continue;
            }
            self.account(&table, &effects);
            let records = effects.iter().flat_map(|effect| effect.before.iter().chain(&effect.after));
            let services: HashSet<&ServiceName> = records.map(|record| &record.instance.name).collect();
            self.hub.wake(&namespace, before, services.into_iter());
            all.extend(effects);
        }
        all
    }

    /// Keeps the sums over all records, and over those of a namespace.
    fn account(&self, table: &Table, effects: &[Effect]) {
        let (mut more, mut less) = (Sums::default(), Sums::default());
        for effect in effects {
            effect.after.iter().for_each(|record| more.add(record));
            effect.before.iter().for_each(|record| less.add(record));
        }
        for (total, more, less) in [
            (&self.len, more.records, less.records),
            (&self.bytes, more.bytes, less.bytes),
            (&self.named, more.named, less.named),
        ] {
            total.fetch_add(more, Ordering::Relaxed);
            total.fetch_sub(less, Ordering::Relaxed);
        }
        table.weigh(more.bytes, less.bytes);
    }
}

/// What is kept of all records.
#[derive(Debug, Default)]
struct Sums {
    records: usize,
    bytes: usize,
    /// How many are registered by a host name.
    named: usize,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += record.bytes();
        self.named += usize::from(matches!(record.instance.address.host(), Host::Name(_)));
    }
}
