//! The change log: what happened lately in a namespace, so that a watcher gets what changed and not everything.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use roundsman_protocol::{Cursor, InstanceId, Query, Removed, ServiceName, Update};

use crate::{edit::Effect, record::Record};

/// What an entry takes besides the record that it keeps alive.
const ENTRY: usize = 128;
/// A log may always keep this much, whatever the others take.
const LEAST: usize = 64 * 1_024;

/// What the logs of all namespaces may keep together, and what one of them may.
#[derive(Debug)]
pub(crate) struct LogBudget {
    total: usize,
    each: usize,
    used: AtomicUsize,
}

/// The last changes of a namespace, by revision without gaps.
#[derive(Debug)]
pub(crate) struct Log {
    entries: VecDeque<Effect>,
    /// The revision of the newest entry.
    revision: u64,
    capacity: usize,
    /// What the entries keep in memory, about.
    bytes: usize,
    budget: Arc<LogBudget>,
}

/// The services that a query names, to be asked for very many times.
pub(crate) enum Named<'q> {
    Few(&'q Query),
    Many(HashSet<&'q ServiceName>),
}

// === impl LogBudget ===

impl LogBudget {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, each: (total / 16).max(LEAST), used: AtomicUsize::new(0) }
    }

    fn is_exceeded_by(&self, own: usize) -> bool {
        own > self.each || (own > LEAST && self.used.load(Ordering::Relaxed) > self.total)
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new(revision: u64, capacity: usize, budget: Arc<LogBudget>) -> Self {
        Self { entries: VecDeque::new(), revision, capacity, bytes: 0, budget }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        let more = weight(&effect);
        self.entries.push_back(effect);
        self.bytes += more;
        self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.revision += 1;
        while self.entries.len() > self.capacity || self.budget.is_exceeded_by(self.bytes) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.forget(weight(&oldest));
        }
    }

    /// Counts a change without keeping it: whoever stood before it needs a snapshot.
    pub(crate) fn skip(&mut self) {
        self.entries.clear();
        self.forget(self.bytes);
        self.revision += 1;
    }

    fn forget(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The changes of the named services after a cursor; `None` when the log does not reach back so far, or the cursor
    /// is of another epoch.
    pub(crate) fn after(&self, epoch: u64, after: Cursor, named: &Named<'_>) -> Option<Vec<Effect>> {
        if after.epoch != epoch {
            return None;
        }
        let missed = usize::try_from(self.revision.checked_sub(after.revision)?).ok()?;
        let skipped = self.entries.len().checked_sub(missed)?;
        let concerned = |effect: &&Effect| {
            let records = effect.before.iter().chain(&effect.after);
            records.into_iter().any(|record| named.contains(&record.instance.name))
        };
        Some(self.entries.range(skipped..).filter(concerned).cloned().collect())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.forget(self.bytes);
    }
}

/// What an entry keeps alive: the record that it replaced. The one after it is alive anyway, or is the one before of a
/// later entry.
fn weight(effect: &Effect) -> usize {
    ENTRY + effect.before.as_ref().map_or(0, |record| record.bytes())
}

// === impl Named ===

impl<'q> Named<'q> {
    pub(crate) fn of(query: &'q Query) -> Self {
        if query.services.len() <= 8 { Self::Few(query) } else { Self::Many(query.services.iter().collect()) }
    }

    pub(crate) fn contains(&self, service: &ServiceName) -> bool {
        match self {
            Self::Few(query) => query.names(service),
            Self::Many(services) => services.contains(service),
        }
    }
}

/// What a watcher of `query` at `cursor` has to learn of these changes.
pub(crate) fn update(cursor: Cursor, query: &Query, effects: &[Effect]) -> Update {
    let mut changed: BTreeMap<&InstanceId, (Option<&Arc<Record>>, &Effect)> = BTreeMap::new();
    for effect in effects {
        let Some(record) = effect.after.as_ref().or(effect.before.as_ref()) else { continue };
        let entry = changed.entry(&record.instance.id).or_insert((effect.before.as_ref(), effect));
        entry.1 = effect;
    }
    let mut update = Update::unchanged(cursor);
    for (before, last) in changed.into_values() {
        tell(&mut update, query, before, last);
    }
    update
}

/// Adds to `update` what a watcher of `query`, who knew `before`, has to learn of the instance's last change.
fn tell(update: &mut Update, query: &Query, before: Option<&Arc<Record>>, last: &Effect) {
    let known = before.filter(|record| query.matches(&record.instance));
    let now = last.after.as_ref().filter(|record| query.matches(&record.instance));
    match (known, now) {
        (Some(known), Some(now)) if known.instance == now.instance => {}
        (_, Some(now)) => update.instances.push(Arc::clone(&now.instance)),
        (Some(known), None) => update.removed.push(Removed {
            id: known.instance.id.clone(),
            name: known.instance.name.clone(),
            status: last.after.as_ref().map(|record| record.status()),
            reason: Arc::clone(&last.reason),
        }),
        (None, None) => {}
    }
}
