//! Waiting for what changed.

use std::time::Duration;

use roundsman_protocol::{Cursor, Namespace, Query, Update};
use tokio::time::{Instant, timeout_at};

use crate::{
    hub::Waiter,
    look::{Changes, Look, Snapshot},
    registry::Registry,
};

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
    /// snapshot at once. A watch that ends without news says so, and moves the cursor on to that moment, also past what
    /// happened to others meanwhile. Cancel safe.
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
            let woken = match deadline {
                Some(deadline) => timeout_at(deadline, waiter.woken()).await,
                None => Ok(waiter.woken().await),
            };
            match woken {
                // What happened to others meanwhile is not looked through, even if the log no longer reaches back to it.
                Ok(before) => seen.revision = seen.revision.max(before.unwrap_or(0)),
                Err(_) => return self.last_news(namespace, query, seen, &waiter).await,
            }
        }
    }

    /// What there is to learn for `query` after a cursor, as of now.
    #[must_use]
    pub fn look(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>) -> Look {
        // Before the look for the table: what is retired afterwards may be ahead of a namespace that is new by then.
        let cursor = Cursor { epoch: self.epoch, revision: self.retired() };
        if let Some(table) = self.table(namespace) {
            return table.look(self.epoch, query, after);
        }
        if after == Some(cursor) {
            return Look::Changes(Changes::none(cursor));
        }
        Look::Snapshot(Snapshot::empty(cursor))
    }

    async fn news(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>) -> News {
        match self.look(namespace, query, after) {
            Look::Snapshot(snapshot) => News::Snapshot(snapshot),
            Look::Changes(changes) => News::Update(changes.update_in_turns(query).await),
        }
    }

    /// What a watch answers that ends by its wait.
    async fn last_news(&self, namespace: &Namespace, query: &Query, seen: Cursor, waiter: &Waiter<'_>) -> News {
        match self.news(namespace, query, Some(seen)).await {
            // There is no such namespace, nor was there one in the meantime: that would have woken the watcher before
            // the namespace was dropped again. Only others came and went.
            News::Snapshot(snapshot) if self.table(namespace).is_none() && !waiter.was_woken() => {
                News::Update(Update::unchanged(snapshot.cursor()))
            }
            news => news,
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
