//! What changed after a cursor: told at once, or waited for.

use std::time::Duration;

use roundsman_protocol::{Cursor, DiscoveryError, Query, Update};
use roundsman_registry::{Look, Snapshot, watch};
use tokio_util::sync::CancellationToken;

use super::{caller::Caller, listing::Listing};
use crate::{edges::Watching, memory::Reservation, method::Method};

/// So many changes are matched at once; more, where nobody else waits for it.
const FEW: usize = 256;
/// What a watch that waits takes in memory, besides its query.
const WAITING: usize = 2_048;
/// What each service that it names takes besides.
const INTEREST: usize = 256;

/// What a watch is answered.
#[derive(Debug)]
pub(crate) enum Watch {
    /// There was something to tell already.
    Now(News),
    /// Nothing yet.
    Later(Waiting),
}

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum News {
    /// What changed, or that nothing did.
    Update(Update),
    /// Everything.
    Snapshot(Listing),
}

/// A watch that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    caller: Caller,
    query: Query,
    after: Option<Cursor>,
    wait: Duration,
    /// Follows until it is dropped, and a little longer: an answered watch comes again.
    _watching: Option<Watching>,
    _reservation: Reservation,
}

// === impl Caller ===

impl Caller {
    /// Answers or waits. A refusal is not counted yet.
    pub(super) fn watch(
        &self,
        query: Query,
        after: Option<Cursor>,
        wait: Duration,
        watching: Option<Watching>,
    ) -> Result<Watch, DiscoveryError> {
        // Most watches of a connection find news waiting, or none and then wait: only those that wait are counted.
        let after = match self.context.registry.look(&self.namespace, &query, after) {
            Look::Snapshot(snapshot) => return Ok(Watch::Now(self.everything(query, snapshot))),
            Look::Changes(changes) if changes.len() <= FEW => {
                let update = changes.update(&query);
                if !update.is_unchanged() {
                    return Ok(Watch::Now(self.told(update)));
                }
                Some(update.cursor)
            }
            Look::Changes(_) => after,
        };
        self.may_watch()?;
        let reservation = self.reserve(WAITING + query.bytes() + query.services.len() * INTEREST)?;
        let caller = self.clone();
        Ok(Watch::Later(Waiting { caller, query, after, wait, _watching: watching, _reservation: reservation }))
    }

    /// Whether one more watch may wait.
    pub(super) fn may_watch(&self) -> Result<(), DiscoveryError> {
        let limit = self.context.config.max_watches;
        if self.context.registry.watches() < limit {
            return Ok(());
        }
        let value = u64::try_from(limit).unwrap_or(u64::MAX);
        Err(DiscoveryError::LimitReached { limit: "--max-watches".to_owned(), value })
    }

    fn everything(&self, query: Query, snapshot: Snapshot) -> News {
        News::Snapshot(Listing::new(query, snapshot, self.timed(Method::Watch, None)))
    }

    fn told(&self, update: Update) -> News {
        self.context.meters.of(self.principal.door()).called(Method::Watch, Duration::ZERO);
        News::Update(update)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Waits until there is something to tell, the time is over, or `stop`.
    ///
    /// # Errors
    /// At `stop`, when there is no cursor to go on from.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<News, DiscoveryError> {
        let Self { caller, query, after, wait, .. } = &self;
        let watch = caller.context.registry.watch(&caller.namespace, query, *after, *wait);
        match (stop.run_until_cancelled(watch).await, after) {
            (Some(watch::News::Snapshot(snapshot)), _) => Ok(caller.everything(query.clone(), snapshot)),
            (Some(watch::News::Update(update)), _) => Ok(caller.told(update)),
            (None, Some(after)) => Ok(caller.told(Update::unchanged(*after))),
            (None, None) => caller.timed(Method::Watch, None).done(Err(DiscoveryError::ShuttingDown)),
        }
    }
}
