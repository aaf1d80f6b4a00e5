//! What a reader is shown of a namespace at one moment. To be matched against a query outside of every lock.

use roundsman_protocol::{Query, Update};

pub use crate::{changes::Changes, snapshot::Snapshot};

/// What a watcher has to learn, not yet matched.
#[derive(Debug)]
pub enum Look {
    /// What happened since its cursor.
    Changes(Changes),
    /// Everything: its cursor is not one to go on from.
    Snapshot(Snapshot),
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
                ..Update::unchanged(snapshot.cursor())
            },
        }
    }
}
