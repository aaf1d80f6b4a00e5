//! What happened to the services of a query since a cursor.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use roundsman_protocol::{Cursor, InstanceId, Query, Removed, ServiceName, Update};

use crate::{edit::Effect, log::Stretch, record::Record, roster::Put};

/// Changes that are matched before others get a turn.
const TURN: usize = 256;

/// What happened to the services of a query since a cursor, not yet matched.
#[derive(Debug)]
pub struct Changes {
    cursor: Cursor,
    stretch: Stretch,
    names: Names,
}

/// The services that changed, of those that a query names.
#[derive(Debug)]
pub(crate) enum Names {
    All,
    Few(Vec<ServiceName>),
    Many(HashSet<ServiceName>),
}

/// Of each instance that changed: what it was before the first change, and the last one.
type Changed<'a> = BTreeMap<&'a InstanceId, (Option<&'a Arc<Record>>, &'a Effect)>;

// === impl Changes ===

impl Changes {
    pub(crate) fn new(cursor: Cursor, stretch: Stretch, names: Names) -> Self {
        Self { cursor, stretch, names }
    }

    /// Nothing happened.
    pub(crate) fn none(cursor: Cursor) -> Self {
        Self::new(cursor, Stretch::default(), Names::Few(Vec::new()))
    }

    /// The moment up to which they reach.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many changes have to be looked through. None when no service of the query changed, whatever else did.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stretch.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a watcher of `query` gets.
    #[must_use]
    pub fn update(&self, query: &Query) -> Update {
        let mut changed = Changed::new();
        self.concerning().for_each(|effect| gather(&mut changed, effect));
        let mut update = Update::unchanged(self.cursor);
        for (before, last) in changed.into_values() {
            self.tell(&mut update, query, before, last);
        }
        update
    }

    /// The same for very many changes: others get a turn in between.
    pub(crate) async fn update_in_turns(&self, query: &Query) -> Update {
        if self.len() <= TURN {
            return self.update(query);
        }
        let mut changed = Changed::new();
        for (n, effect) in self.stretch.effects().enumerate() {
            if n % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            if self.names.concern(effect) {
                gather(&mut changed, effect);
            }
        }
        let mut update = Update::unchanged(self.cursor);
        for (n, (before, last)) in changed.into_values().enumerate() {
            if n % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            self.tell(&mut update, query, before, last);
        }
        update
    }

    /// What has to be put back into which service so that nothing of this happened.
    pub(crate) fn undoing(&self) -> BTreeMap<&ServiceName, Vec<Put<Arc<Record>>>> {
        let (mut changed, mut puts) = (Changed::new(), BTreeMap::<_, Vec<_>>::new());
        let put = |record: &Arc<Record>, back: bool| {
            let member = back.then(|| Arc::clone(record));
            Put { key: record.instance.id.clone(), member }
        };
        for effect in self.concerning() {
            for record in effect.before.iter().chain(&effect.after).filter(|record| self.has(record)) {
                puts.entry(&record.instance.name).or_default().push(put(record, false));
            }
            gather(&mut changed, effect);
        }
        // Of several puts of an instance the last one counts.
        for record in changed.into_values().filter_map(|(before, _)| before.filter(|record| self.has(record))) {
            puts.entry(&record.instance.name).or_default().push(put(record, true));
        }
        puts
    }

    /// Whether a record is in a service that changed.
    fn has(&self, record: &Record) -> bool {
        self.names.contain(&record.instance.name)
    }

    fn concerning(&self) -> impl Iterator<Item = &Effect> {
        self.stretch.effects().filter(|effect| self.names.concern(effect))
    }

    /// Adds to `update` what a watcher of `query`, who knew `before`, has to learn of the instance's last change.
    fn tell(&self, update: &mut Update, query: &Query, before: Option<&Arc<Record>>, last: &Effect) {
        let matches =
            |record: &&Arc<Record>| self.names.contain(&record.instance.name) && query.describes(&record.instance);
        let known = before.filter(matches);
        let now = last.after.as_ref().filter(matches);
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
}

fn gather<'a>(changed: &mut Changed<'a>, effect: &'a Effect) {
    if let Some(record) = effect.after.as_ref().or(effect.before.as_ref()) {
        changed.entry(&record.instance.id).or_insert((effect.before.as_ref(), effect)).1 = effect;
    }
}

// === impl Names ===

impl FromIterator<ServiceName> for Names {
    fn from_iter<I: IntoIterator<Item = ServiceName>>(names: I) -> Self {
        let names: Vec<ServiceName> = names.into_iter().collect();
        if names.len() <= 8 { Self::Few(names) } else { Self::Many(names.into_iter().collect()) }
    }
}

impl Names {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Few(names) if names.is_empty())
    }

    fn contain(&self, name: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Few(names) => names.contains(name),
            Self::Many(names) => names.contains(name),
        }
    }

    fn concern(&self, effect: &Effect) -> bool {
        effect.before.iter().chain(&effect.after).any(|record| self.contain(&record.instance.name))
    }
}
