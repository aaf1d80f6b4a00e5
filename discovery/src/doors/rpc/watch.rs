//! What `watch` does: answers with what changed, or waits for it.

use std::time::Duration;

use futures::future::FutureExt;
use roundsman_protocol::{Cursor, DiscoveryError, DiscoveryResponse, Query, Update, limits, rpc::Wait};
use roundsman_registry::{Look, watch::News};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answered, Caller, done, is_small},
    calls::{Done, Kind, Later},
    encoded::Form,
    frame::Outgoing,
};
use crate::{
    edges::{Tracker, Watching},
    memory::Reservation,
};

/// So many changes are matched at once; more, where nobody else waits for it.
const FEW: usize = 256;
/// What a watch that waits takes in memory, besides its query.
const WAITING: usize = 2_048;
/// What each service that it names takes besides.
const INTEREST: usize = 256;

/// A watch that waits.
struct Pending {
    caller: Caller,
    id: u64,
    query: Query,
    after: Option<Cursor>,
    wait: Duration,
    /// Follows until it is dropped, and a little longer: an answered watch comes again.
    _watching: Option<Watching>,
    _reservation: Reservation,
}

impl Caller {
    pub(super) fn watch(
        &self,
        id: u64,
        query: Query,
        after: Option<Cursor>,
        wait: Wait,
        tracker: Option<&mut Tracker>,
    ) -> Answered {
        let refused = |error| Answered::Now(self.answer(id, DiscoveryResponse::Watch(Err(error))));
        if let Err(invalid) = query.validate() {
            return refused(invalid.into());
        }
        let query = query.canonical();
        let watching = tracker.map(|tracker| tracker.watches(&query.services));
        // Most watches of a connection find news waiting, or none and then wait: only those that wait are counted.
        let after = match self.at_once(id, &query, after) {
            Ok(answered) => return answered,
            Err(after) => after,
        };
        let limit = self.context.config.max_watches;
        if self.context.registry.watches() >= limit {
            let value = u64::try_from(limit).unwrap_or(u64::MAX);
            return refused(DiscoveryError::LimitReached { limit: "--max-watches".to_owned(), value });
        }
        let bytes = WAITING + query.bytes() + query.services.len() * INTEREST;
        let reservation = match self.context.budget.reserve(&self.namespace, bytes) {
            Ok(reservation) => reservation,
            Err(error) => return refused(error),
        };
        let wait = wait.0.min(limits::MAX_WATCH_WAIT);
        let pending =
            Pending { caller: self.clone(), id, query, after, wait, _watching: watching, _reservation: reservation };
        Answered::Later(Later { kind: Kind::Watch, call: Box::new(move |stop| pending.run(stop).boxed()) })
    }

    /// The answer, if there is something to tell already; otherwise where to go on.
    fn at_once(&self, id: u64, query: &Query, after: Option<Cursor>) -> Result<Answered, Option<Cursor>> {
        match self.context.registry.look(&self.namespace, query, after) {
            Look::Changes(changes) if changes.len() <= FEW => {
                let update = changes.update(query);
                if update.is_unchanged() {
                    return Err(Some(update.cursor));
                }
                Ok(Answered::Now(self.told(id, update)))
            }
            Look::Changes(_) => Err(after),
            Look::Snapshot(snapshot) if is_small(&snapshot) => {
                Ok(Answered::Now(self.told(id, Look::Snapshot(snapshot).update(query))))
            }
            Look::Snapshot(snapshot) => {
                let (caller, query) = (self.clone(), query.clone());
                let call = move |_stop: CancellationToken| {
                    async move {
                        caller.context.meters.called(7, Duration::ZERO);
                        done(caller.encoded(id, Form::Watch, query, snapshot).await)
                    }
                    .boxed()
                };
                Ok(Answered::Later(Later { kind: Kind::Work, call: Box::new(call) }))
            }
        }
    }

    fn told(&self, id: u64, update: Update) -> Outgoing {
        self.context.meters.called(7, Duration::ZERO);
        self.answer(id, DiscoveryResponse::Watch(Ok(update)))
    }
}

// === impl Pending ===

impl Pending {
    async fn run(self, stop: CancellationToken) -> Done {
        let Self { caller, id, query, after, wait, .. } = &self;
        let watch = caller.context.registry.watch(&caller.namespace, query, *after, *wait);
        let outgoing = match (stop.run_until_cancelled(watch).await, after) {
            (Some(News::Snapshot(snapshot)), _) if is_small(&snapshot) => {
                caller.told(*id, Look::Snapshot(snapshot).update(query))
            }
            (Some(News::Snapshot(snapshot)), _) => {
                caller.context.meters.called(7, Duration::ZERO);
                caller.encoded(*id, Form::Watch, query.clone(), snapshot).await
            }
            (Some(News::Update(update)), _) if update.instances.len() > FEW => {
                caller.context.meters.called(7, Duration::ZERO);
                caller.framed(*id, move |_| DiscoveryResponse::Watch(Ok(update))).await
            }
            (Some(News::Update(update)), _) => caller.told(*id, update),
            (None, Some(after)) => caller.told(*id, Update::unchanged(*after)),
            (None, None) => caller.answer(*id, DiscoveryResponse::Watch(Err(DiscoveryError::ShuttingDown))),
        };
        done(outgoing)
    }
}
