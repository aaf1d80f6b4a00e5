//! Waiting for what changed.

use std::time::Duration;

use roundsman_protocol::{Cursor, Namespace, Query, Update};
use tokio::time::{Instant, timeout_at};

use crate::registry::Registry;

impl Registry {
    /// What changed for `query` after a cursor; waits up to `wait` for it.
    ///
    /// Without a cursor, or with one from which this registry cannot go on (another epoch, too old), answers with a
    /// snapshot at once. A watch that ends without news says so, and moves the cursor on. Cancel safe.
    pub async fn watch(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>, wait: Duration) -> Update {
        let first = self.look(namespace, query, after);
        if !first.is_unchanged() || wait.is_zero() {
            return first;
        }
        let deadline = Instant::now().checked_add(wait);
        let waiter = self.hub.listen(namespace, &query.services);
        let mut seen = first.cursor;
        loop {
            let update = self.look(namespace, query, Some(seen));
            if !update.is_unchanged() {
                return update;
            }
            seen = update.cursor;
            match deadline {
                Some(deadline) if timeout_at(deadline, waiter.woken()).await.is_err() => {
                    return Update::unchanged(seen);
                }
                Some(_) => {}
                None => waiter.woken().await,
            }
        }
    }

    /// What changed for `query` after a cursor, as of now.
    #[must_use]
    pub fn look(&self, namespace: &Namespace, query: &Query, after: Option<Cursor>) -> Update {
        if let Some(table) = self.table(namespace) {
            return table.look(self.epoch, query, after);
        }
        let cursor = Cursor { epoch: self.epoch, revision: self.retired() };
        let snapshot = after != Some(cursor);
        Update { snapshot, ..Update::unchanged(cursor) }
    }
}
