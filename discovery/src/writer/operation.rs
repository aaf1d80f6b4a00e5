//! The one thing that the store is doing.

use std::{future::pending, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use roundsman_registry::{Record, Tombstone};
use roundsman_store::{Aside, Committed, Durable, Position, Snapshot, StoreError};
use tokio::{sync::oneshot, time::Instant};

use super::batch::Batch;

/// The one thing that the store is doing.
pub(super) struct Operation {
    pub(super) what: What,
    pub(super) began: Instant,
    result: BoxFuture<'static, Result<Done, StoreError>>,
}

/// What the store is asked for, and what waits for it.
pub(super) enum What {
    Commit(Batch),
    /// The store is full; these are removals and drains, which have a reserve.
    FromReserve(Batch),
    /// The store lost its contents; after the refill the batch is committed again.
    Refill(Option<Batch>),
    /// Whether it is there and has what it should have.
    Probe,
    /// Changes of others were missed; the follower waits to hear where to go on.
    Reload(oneshot::Sender<Position>),
}

/// What the store did.
pub(super) enum Done {
    /// But for the namespaces and events that are named.
    Written(Committed),
    Refilled,
    /// The records that it should have and has not.
    Missing(Vec<Arc<Record>>),
    Loaded(Snapshot, Aside),
}

impl Operation {
    pub(super) fn commit(store: &Arc<dyn Durable>, batch: Batch) -> Self {
        let (store, changes, events) = (Arc::clone(store), batch.changes.clone(), batch.events());
        Self::new(What::Commit(batch), async move { store.commit(&changes, &events).await.map(Done::Written) }.boxed())
    }

    pub(super) fn commit_from_reserve(store: &Arc<dyn Durable>, batch: Batch) -> Self {
        let (store, changes, events) = (Arc::clone(store), batch.changes.clone(), batch.events());
        let result = async move { store.commit_from_reserve(&changes, &events).await.map(Done::Written) };
        Self::new(What::FromReserve(batch), result.boxed())
    }

    pub(super) fn refill(
        store: &Arc<dyn Durable>,
        records: Vec<Arc<Record>>,
        removed: Vec<Tombstone>,
        batch: Option<Batch>,
    ) -> Self {
        let store = Arc::clone(store);
        let result = async move { store.refill(&records, &removed).await.map(|_| Done::Refilled) };
        Self::new(What::Refill(batch), result.boxed())
    }

    pub(super) fn probe(store: &Arc<dyn Durable>, records: Vec<Arc<Record>>) -> Self {
        let store = Arc::clone(store);
        let result = async move {
            store.probe().await?;
            store.missing(&records).await.map(Done::Missing)
        };
        Self::new(What::Probe, result.boxed())
    }

    pub(super) fn reload(store: &Arc<dyn Durable>, reply: oneshot::Sender<Position>) -> Self {
        let store = Arc::clone(store);
        let result = async move {
            let snapshot = store.load().await?;
            let aside = if snapshot.damaged.is_empty() { Aside::default() } else { store.set_aside().await? };
            Ok(Done::Loaded(snapshot, aside))
        };
        Self::new(What::Reload(reply), result.boxed())
    }

    fn new(what: What, result: BoxFuture<'static, Result<Done, StoreError>>) -> Self {
        Self { what, began: Instant::now(), result }
    }

    /// Waits for an operation's end, for ever when there is none. Cancel safe: the operation goes on where it was.
    pub(super) async fn running(operation: &mut Option<Self>) -> Result<Done, StoreError> {
        match operation {
            Some(operation) => (&mut operation.result).await,
            None => pending().await,
        }
    }

    /// Waits for the end of this one.
    pub(super) async fn ended(self) -> (What, Result<Done, StoreError>, Instant) {
        (self.what, self.result.await, self.began)
    }
}
