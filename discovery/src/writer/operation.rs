//! The one thing that the store is doing.

use std::{future::pending, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use roundsman_registry::Record;
use roundsman_store::{Store, StoreError};
use tokio::time::Instant;

use super::batch::Batch;

/// The one thing that the store is doing.
pub(super) struct Operation {
    pub(super) what: What,
    pub(super) began: Instant,
    result: BoxFuture<'static, Result<(), StoreError>>,
}

/// What the store is asked for, and what waits for it.
pub(super) enum What {
    Commit(Batch),
    /// The store lost its contents; after the refill the batch is committed again.
    Refill(Option<Batch>),
    Probe,
}

impl Operation {
    pub(super) fn commit(store: &Arc<dyn Store>, batch: Batch) -> Self {
        let (store, changes) = (Arc::clone(store), batch.changes.clone());
        Self::new(What::Commit(batch), async move { store.commit(&changes).await.map(drop) }.boxed())
    }

    pub(super) fn refill(store: &Arc<dyn Store>, records: Vec<Arc<Record>>, batch: Option<Batch>) -> Self {
        let store = Arc::clone(store);
        Self::new(What::Refill(batch), async move { store.refill(&records).await.map(drop) }.boxed())
    }

    pub(super) fn probe(store: &Arc<dyn Store>) -> Self {
        let store = Arc::clone(store);
        Self::new(What::Probe, async move { store.probe().await }.boxed())
    }

    fn new(what: What, result: BoxFuture<'static, Result<(), StoreError>>) -> Self {
        Self { what, began: Instant::now(), result }
    }

    /// Waits for an operation's end, for ever when there is none. Cancel safe: the operation goes on where it was.
    pub(super) async fn running(operation: &mut Option<Self>) -> Result<(), StoreError> {
        match operation {
            Some(operation) => (&mut operation.result).await,
            None => pending().await,
        }
    }

    /// Waits for the end of this one.
    pub(super) async fn ended(self) -> (What, Result<(), StoreError>, Instant) {
        (self.what, self.result.await, self.began)
    }
}
