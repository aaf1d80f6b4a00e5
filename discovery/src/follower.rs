//! What other servers on the same store commit.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use roundsman_registry::Change;
use roundsman_store::{Foreign, Position, Store};
use tokio::{sync::mpsc, time::sleep};

/// Before the store is read again after its stream of changes ended.
const PAUSE: Duration = Duration::from_millis(500);

/// Hands what others commit to the writer, for ever. Where the stream ends, because changes were missed, the store is
/// read again: records that are new or differ are taken over, and nothing is taken away, since what the store does not have may be what it lost.
pub(crate) async fn follow(store: Arc<dyn Store>, mut position: Position, foreign: mpsc::Sender<Foreign>) {
    loop {
        let mut changes = store.changes(position.clone());
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    position = change.position.clone();
                    if foreign.send(change).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot follow the store's changes");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(changes);
        sleep(PAUSE).await;
        let Ok(snapshot) = store.load().await else { continue };
        position = snapshot.position;
        for record in snapshot.records {
            let change = Change::Put(Arc::new(record));
            if foreign.send(Foreign { change, position: position.clone() }).await.is_err() {
                return;
            }
        }
    }
}
