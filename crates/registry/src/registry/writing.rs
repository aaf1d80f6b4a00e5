//! Changing the registry: one writer at a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::Ordering,
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

    /// Carries edits out, shows them to readers and wakes the watchers whom they concern.
    pub fn apply(&self, edits: &[Edit]) -> Vec<Effect> {
        let mut by_namespace: BTreeMap<Namespace, Vec<&Edit>> = BTreeMap::new();
        for edit in edits {
            edit.version().into_iter().for_each(|version| self.saw_version(version));
            by_namespace.entry(edit.key().namespace).or_default().push(edit);
        }
        let mut all = Vec::new();
        for (namespace, edits) in by_namespace {
            let table = self.namespaces.get_or_add(&namespace);
            let was_empty = table.is_empty();
            let Applied { effects, before } = table.apply(edits.into_iter());
            self.namespaces.changed(&namespace, was_empty, table.is_empty());
            if effects.is_empty() {
                continue;
            }
            self.account(&table, &effects);
            self.wake(&namespace, before, &effects);
            all.extend(effects);
        }
        self.recent.remember(&all);
        all
    }

    /// Wakes the watchers whom effects concern.
    pub(super) fn wake(&self, namespace: &Namespace, before: u64, effects: &[Effect]) {
        let records = effects.iter().flat_map(|effect| effect.before.iter().chain(&effect.after));
        let services: HashSet<&ServiceName> = records.map(|record| &record.instance.name).collect();
        self.hub.wake(namespace, before, services.into_iter());
    }

    /// Keeps the sums over all records, and over those of a namespace.
    pub(super) fn account(&self, table: &Table, effects: &[Effect]) {
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
