//! A resolver's list, as a stream.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};

use crate::{resolver::Resolver, snapshot::Snapshot};

/// A stream of the snapshots of a [`Resolver`]; made by [`Resolver::changes`].
///
/// The first item is the present one. After that comes one for each change: of the instances, of their data and health, and
/// of whether the list is [stale](Snapshot::stale). Each is complete, so that a slow reader simply skips some and gets
/// the latest. It ends when the [`Discovery`](crate::Discovery) is closed.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// let mut changes = discovery.resolver("product").await?.changes();
/// while let Some(snapshot) = changes.next().await {
///     println!("{} to choose from, stale: {:?}", snapshot.instances().len(), snapshot.stale());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Changes {
    snapshots: BoxStream<'static, Arc<Snapshot>>,
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(resolver: Resolver) -> Self {
        let mut receiver = resolver.feed().changes();
        receiver.mark_changed();
        let snapshots = stream::unfold((resolver, receiver), |(resolver, mut receiver)| async move {
            tokio::select! {
                biased;
                () = resolver.closed() => return None,
                changed = receiver.changed() => changed.ok()?,
            }
            let snapshot = Arc::clone(&receiver.borrow_and_update());
            Some((snapshot, (resolver, receiver)))
        });
        Self { snapshots: snapshots.boxed() }
    }

    /// The next snapshot, or `None` when there will be none any more. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        self.snapshots.next().await
    }
}

impl Stream for Changes {
    type Item = Arc<Snapshot>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.snapshots.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
