//! The change log: what happened lately in a namespace, so that a watcher gets what changed and not everything.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use roundsman_protocol::{Cursor, InstanceId, Query, Removed, Update};

use crate::{edit::Effect, record::Record};

/// The last changes of a namespace, by revision without gaps.
#[derive(Debug)]
pub(crate) struct Log {
    entries: VecDeque<Effect>,
    /// The revision of the newest entry.
    revision: u64,
    capacity: usize,
}

impl Log {
    pub(crate) fn new(revision: u64, capacity: usize) -> Self {
        Self { entries: VecDeque::new(), revision, capacity }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(effect);
        self.revision += 1;
    }

    /// Counts a change without keeping it: whoever stood before it needs a snapshot.
    pub(crate) fn skip(&mut self) {
        self.entries.clear();
        self.revision += 1;
    }

    /// The changes after a revision; `None` when the log does not reach back so far, or never was there.
    fn after(&self, revision: u64) -> Option<impl Iterator<Item = &Effect>> {
        let missed = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let skipped = self.entries.len().checked_sub(missed)?;
        Some(self.entries.iter().skip(skipped))
    }

    /// What changed for a query after a cursor; `None` when the log cannot tell.
    pub(crate) fn update(&self, epoch: u64, query: &Query, after: Cursor) -> Option<Update> {
        if after.epoch != epoch {
            return None;
        }
        let mut changed: BTreeMap<&InstanceId, (Option<&Arc<Record>>, &Effect)> = BTreeMap::new();
        for effect in self.after(after.revision)? {
            let Some(record) = effect.after.as_ref().or(effect.before.as_ref()) else { continue };
            if !query.names(&record.instance.name)
                && !effect.before.as_ref().is_some_and(|b| query.names(&b.instance.name))
            {
                continue;
            }
            let entry = changed.entry(&record.instance.id).or_insert((effect.before.as_ref(), effect));
            entry.1 = effect;
        }
        let mut update = Update::unchanged(Cursor { epoch, revision: self.revision });
        for (before, last) in changed.into_values() {
            tell(&mut update, query, before, last);
        }
        Some(update)
    }
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
