//! What changed after a cursor: told at once, or waited for.

use std::time::Duration;

use roundsman_protocol::{Cursor, Digest, DiscoveryError, Known, Query, Update};
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
    /// Everything, or what the watcher does not know of it.
    Snapshot(Listing),
}

/// A watch that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    caller: Caller,
    query: Query,
    after: Option<Cursor>,
    /// What the watcher knows, should its cursor be of no use by the time that something happens.
    known: Option<Digest>,
    wait: Duration,
    /// Follows until it is dropped, and a little longer: an answered watch comes again.
    _watching: Option<Watching>,
    _reservation: Reservation,
}

// === impl Caller ===

impl Caller {
    /// Answers or waits. A refusal is not counted yet.
    ///
    /// A watcher whose cursor is of no use is answered at once, however long it would wait: if it knows all already, with
    /// nothing but the cursor to go on from.
    pub(super) fn watch(
        &self,
        query: Query,
        after: Option<Cursor>,
        known: Option<Known>,
        wait: Duration,
        watching: Option<Watching>,
    ) -> Result<Watch, DiscoveryError> {
        let known = known.and_then(|known| match known {
            Known::Digest(digest) => Some(digest),
            Known::Ids(_) => None,
        });
        // Most watches of a connection find news waiting, or none and then wait: only those that wait are counted.
        let after = match self.context.registry.look(&self.namespace, &query, after) {
            Look::Snapshot(snapshot) => return Ok(Watch::Now(self.unknown(query, snapshot, known))),
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
        let digest = known.as_ref().map_or(0, |known| known.parts.len() * size_of::<u64>());
        let reservation = self.reserve(WAITING + query.bytes() + query.services.len() * INTEREST + digest)?;
        let caller = self.clone();
        Ok(Watch::Later(Waiting { caller, query, after, known, wait, _watching: watching, _reservation: reservation }))
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

    /// What a watcher does not know.
    fn unknown(&self, query: Query, snapshot: Snapshot, known: Option<Digest>) -> News {
        // Thousands come back at once after a restart, and nearly all of them know everything.
        if known.as_ref().is_some_and(|known| snapshot.adds_up_to(&query, known) == Some(true)) {
            return self.told(Update::unchanged(snapshot.cursor()));
        }
        News::Snapshot(self.everything(query, snapshot, known))
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
        let Self { caller, query, after, known, wait, .. } = &self;
        let watch = caller.context.registry.watch(&caller.namespace, query, *after, *wait);
        match (stop.run_until_cancelled(watch).await, after) {
            (Some(watch::News::Snapshot(snapshot)), _) => Ok(caller.unknown(query.clone(), snapshot, known.clone())),
            (Some(watch::News::Update(update)), _) => Ok(caller.told(update)),
            (None, Some(after)) => Ok(caller.told(Update::unchanged(*after))),
            (None, None) => caller.timed(Method::Watch, None).done(Err(DiscoveryError::ShuttingDown)),
        }
    }
}
