//! What a reader is shown of a namespace at one moment. To be matched against a query outside of every lock.

use std::sync::Arc;

use roundsman_protocol::{Cursor, Instance, Query, Update};

use crate::{edit::Effect, log, record::Record, view::View};

/// What a watcher has to learn, not yet matched.
#[derive(Debug)]
pub enum Look {
    /// What happened since its cursor.
    Changes(Changes),
    /// Everything: its cursor is not one to go on from.
    Snapshot(Snapshot),
}

/// What happened to the services of a query since a cursor.
#[derive(Debug)]
pub struct Changes {
    pub(crate) cursor: Cursor,
    pub(crate) effects: Vec<Effect>,
}

/// The services of a query at one moment.
#[derive(Debug)]
pub struct Snapshot {
    cursor: Cursor,
    views: Vec<Arc<View>>,
}

// === impl Look ===

impl Look {
    /// What a watcher of `query` gets.
    #[must_use]
    pub fn update(&self, query: &Query) -> Update {
        match self {
            Self::Changes(changes) => changes.update(query),
            Self::Snapshot(snapshot) => Update {
                snapshot: true,
                instances: snapshot.matching(query).collect(),
                ..Update::unchanged(snapshot.cursor)
            },
        }
    }
}

// === impl Changes ===

impl Changes {
    /// What a watcher of `query` gets.
    #[must_use]
    pub fn update(&self, query: &Query) -> Update {
        log::update(self.cursor, query, &self.effects)
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn new(cursor: Cursor, views: Vec<Arc<View>>) -> Self {
        Self { cursor, views }
    }

    /// The moment.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many records there are, in whatever status.
    #[must_use]
    pub fn len(&self) -> usize {
        self.views.iter().map(|view| view.records.len()).sum()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes its records take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.views.iter().flat_map(|view| &view.records).map(|record| record.bytes()).sum()
    }

    /// The instances that a query matches, by service and id.
    pub fn matching<'q>(&self, query: &'q Query) -> impl Iterator<Item = Arc<Instance>> + use<'q> {
        let mut views = self.views.clone();
        views.sort_unstable_by(|a, b| a.summary.name.cmp(&b.summary.name));
        let records = views.into_iter().flat_map(|view| view.records.to_vec());
        // The views are those of the query's services already.
        records.filter(|record| query.describes(&record.instance)).map(|record| answer(&record, query.history))
    }
}

/// The instance as it is answered.
fn answer(record: &Record, history: bool) -> Arc<Instance> {
    if !history {
        return Arc::clone(&record.instance);
    }
    Arc::new(Instance { history: record.flips().into(), ..Instance::clone(&record.instance) })
}
