//! Changing the registry: one writer at a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use roundsman_protocol::{Host, Namespace, ServiceName, Timestamp};

use super::Registry;
use crate::{
    draft::{Draft, Limits},
    edit::{Edit, Effect},
    record::{Asked, Record},
    table::{Applied, Table},
};

impl Registry {
    /// Starts to plan a batch.
    #[must_use]
    pub fn draft(&self, limits: Limits) -> Draft<'_> {
        Draft::new(self, limits)
    }

    /// A version for something that is asked for: the time in milliseconds, or one more than the last version that was given
    /// out or seen, whichever is later. So versions grow also where clocks go back, or those of other servers are ahead.
    #[must_use]
    pub fn next_version(&self, now: Timestamp) -> u64 {
        let next = |last: u64| last.saturating_add(1).max(now.as_millis());
        // The function never declines, so this is the value before in both cases.
        let last = self.versions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        last.map_or_else(next, next)
    }

    /// There is this version somewhere: what is asked for from now on is later. A time that no clock shows is not believed, or
    /// a single wrong number in a store would leave none for anybody.
    pub fn saw_version(&self, version: u64) {
        if version <= Asked::LATEST {
            self.versions.fetch_max(version, Ordering::Relaxed);
        }
    }

    /// Takes in what a store held, before anybody reads. Those whose address belongs to another one that was asked for later
    /// are not taken in, or taken out again.
    pub fn load(&self, records: Vec<Record>) -> Loaded {
        let adopt = |record| Edit::Adopt { record: Arc::new(record), seen_later: false };
        let edits: Vec<Edit> = records.into_iter().map(adopt).collect();
        let effects = self.carry_out(&edits, false);
        let mut loaded = Loaded::default();
        for effect in effects {
            match (effect.before, effect.after) {
                (_, Some(after)) => loaded.records.push(after),
                (Some(before), None) => loaded.ghosts.push(before),
                (None, None) => {}
            }
        }
        if loaded.records.len() < edits.len() {
            let without = edits.iter().filter_map(|edit| match edit {
                Edit::Adopt { record, .. } if self.find(&record.key()).is_none() => Some(Arc::clone(record)),
                _ => None,
            });
            loaded.ghosts.extend(without);
        }
        loaded
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
            edit.version().into_iter().for_each(|version| self.saw_version(version));
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

/// What became of records out of a store.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that were taken in.
    pub records: Vec<Arc<Record>>,
    /// Those that were not, or no longer are: another one that was asked for later has their address.
    pub ghosts: Vec<Arc<Record>>,
}

impl Loaded {
    /// Takes in what became of more of them.
    pub fn add(&mut self, more: Self) {
        self.records.extend(more.records);
        self.ghosts.extend(more.ghosts);
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
