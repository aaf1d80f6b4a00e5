//! Waiting for what changed.

use std::time::Duration;

use roundsman_protocol::{Cursor, Namespace, Query, Update};
use tokio::time::{Instant, timeout_at};

use crate::{
    look::{Changes, Look, Snapshot},
    registry::Registry,
};

/// Changes that are matched before others get a turn. A query has at most a few thousand comparisons for each.
const TURN: usize = 256;

/// What a watch ends with.
#[derive(Debug)]
pub enum News {
    /// What changed, or that nothing did.
    Update(Update),
    /// Everything, not yet matched.
    Snapshot(Snapshot),
}

impl Registry {
    /// What changed for `query` after a cursor; waits up to `wait` for it.
    ///
    /// Without a cursor, or with one from which this registry cannot go on (another epoch, too old), answers with a
    /// snapshot at once. A watch that ends without news says so, and moves the cursor on. Cancel safe.
    pub async fn watch(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>, wait: Duration) -> News {
        let deadline = Instant::now().checked_add(wait);
        let mut seen = match self.news(namespace, query, after).await {
            News::Update(update) if update.is_unchanged() && !wait.is_zero() => update.cursor,
            news => return news,
        };
        let waiter = self.hub.listen(namespace, &query.services);
        loop {
            match self.news(namespace, query, Some(seen)).await {
                News::Update(update) if update.is_unchanged() => seen = update.cursor,
                news => return news,
            }
            match deadline {
                Some(deadline) if timeout_at(deadline, waiter.woken()).await.is_err() => {
                    return News::Update(Update::unchanged(seen));
                }
                Some(_) => {}
                None => waiter.woken().await,
            }
        }
    }

    /// What there is to learn for `query` after a cursor, as of now.
    #[must_use]
    pub fn look(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>) -> Look {
        if let Some(table) = self.table(namespace) {
            return table.look(self.epoch, query, after);
        }
        let cursor = Cursor { epoch: self.epoch, revision: self.retired() };
        if after == Some(cursor) {
            return Look::Changes(Changes { cursor, effects: Vec::new() });
        }
        Look::Snapshot(Snapshot::new(cursor, Vec::new()))
    }

    async fn news(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>) -> News {
        match self.look(namespace, query, after) {
            Look::Snapshot(snapshot) => News::Snapshot(snapshot),
            Look::Changes(changes) => {
                if changes.len() > TURN {
                    tokio::task::yield_now().await;
                }
                News::Update(changes.update(query))
            }
        }
    }
}

// === impl News ===

impl News {
    /// What a watcher of `query` gets.
    #[must_use]
    pub fn update(self, query: &Query) -> Update {
        match self {
            Self::Update(update) => update,
            Self::Snapshot(snapshot) => Look::Snapshot(snapshot).update(query),
        }
    }
}
