//! What other servers on the same store commit.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use roundsman_store::{Foreign, Position, Replicator};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

/// Before the store is read again after its stream of changes ended.
const PAUSE: Duration = Duration::from_millis(500);

/// What the follower tells the writer.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Another server committed this.
    Change(Foreign),
    /// Changes were missed. The writer has to read the store again, between two commits, and says where that was.
    Gap(oneshot::Sender<Position>),
}

/// Hands what others commit to the writer, for ever. Where the stream ends, because changes were missed, the writer
/// reads the store again: it alone can do so while nothing of ours is on its way, and what was read is the truth.
pub(crate) async fn follow(store: Arc<dyn Replicator>, mut position: Position, heard: mpsc::Sender<Heard>) {
    loop {
        let mut changes = store.changes(position);
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    if heard.send(Heard::Change(change)).await.is_err() {
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
        position = loop {
            sleep(PAUSE).await;
            let (answer, read) = oneshot::channel();
            if heard.send(Heard::Gap(answer)).await.is_err() {
                return;
            }
            // Without an answer it could not be read; it is tried again.
            if let Ok(position) = read.await {
                break position;
            }
        };
    }
}
