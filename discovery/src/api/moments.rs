//! What answers in pages are cut from: the moments whose pages somebody reads.
//!
//! All pages of an answer show the moment of the first one. A moment is a snapshot, which costs nothing but what has
//! changed since. It is kept for a few seconds after it was last read from; when it is gone, it is made again by
//! undoing what the change log has since then. Only when the log does not reach back, or another server began the
//! answer, the page shows what is there now. Then the watcher cannot go on from the first page's cursor either, and is
//! told what differs from what it knows.

mod kept;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use roundsman_protocol::{Cursor, Digest, Namespace, Query};
use roundsman_registry::{Look, Registry, Snapshot};
use tokio::time::Instant;

use self::kept::Kept;
use crate::memory::Budget;

/// How long a moment is kept after it was last read from.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// How many moments are kept for one namespace, and for all.
const OF_NAMESPACE: usize = 64;
const OF_ALL: usize = 512;
/// With so many moments of one query, whoever begins to watch shares the newest of them while it is this young, and is
/// told next what has changed since. Otherwise each of thousands of watchers would get bytes of its own, just because
/// something changes while they come.
const OF_QUERY: usize = 8;
const YOUNG: Duration = Duration::from_secs(1);

/// The instances that a query matches at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    query: Query,
    snapshot: Snapshot,
    /// When it was now. Unknown of one that was made again.
    began: Option<Instant>,
    /// What the instances add up to, once somebody asked.
    digest: OnceLock<Digest>,
}

/// The moments whose pages somebody reads.
#[derive(Debug)]
pub(crate) struct Moments {
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    kept: Mutex<HashMap<Namespace, Vec<Kept>>>,
}

// === impl Moment ===

impl Moment {
    /// That of a snapshot which was taken just now.
    pub(super) fn now(query: Query, snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self { query, snapshot, began: Some(Instant::now()), digest: OnceLock::new() })
    }

    /// An earlier one.
    fn past(query: Query, snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self { query, snapshot, began: None, digest: OnceLock::new() })
    }

    fn is_young(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() < YOUNG)
    }

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.snapshot.cursor()
    }

    /// The parts in which it differs from what a watcher knows, as a bitmask. May take long, but only once.
    pub(super) fn parts_that_differ(&self, known: &Digest) -> u64 {
        if self.snapshot.adds_up_to(&self.query, known) == Some(true) {
            return 0;
        }
        self.digest.get_or_init(|| self.snapshot.digest(&self.query)).parts_that_differ(known)
    }
}

// === impl Moments ===

impl Moments {
    pub(crate) fn new(registry: Arc<Registry>, budget: Arc<Budget>) -> Self {
        Self { registry, budget, kept: Mutex::default() }
    }

    /// The moment of an answer that begins, for which this snapshot was taken. It may be an earlier moment when that
    /// looked the same, and for a watcher, who goes on from there, also when there are many moments already.
    pub(super) fn begin(&self, namespace: &Namespace, query: Query, snapshot: Snapshot, watched: bool) -> Arc<Moment> {
        let newest = self.newest(namespace, &query);
        if let Some((newest, count)) = newest
            && self.serves(namespace, &newest, watched && count >= OF_QUERY)
        {
            return self.keep(namespace, newest, 0);
        }
        self.keep(namespace, Moment::now(query, snapshot), 0)
    }

    /// The moment of an answer that goes on. May take long.
    pub(super) fn go_on(&self, namespace: &Namespace, query: Query, first: Cursor) -> Arc<Moment> {
        if let Some(moment) = self.find(namespace, &query, first) {
            return moment;
        }
        // First what is there now, then what happened: what happens in between is undone as well.
        let now = self.registry.snapshot(namespace, &query);
        match self.registry.look(namespace, &query, Some(first)) {
            Look::Changes(changes) => {
                let then = now.before(&changes, first);
                self.keep(namespace, Moment::past(query, then), changes.len())
            }
            Look::Snapshot(_) => self.begin(namespace, query, now, true),
        }
    }

    /// Drops what nobody reads any more, and what cannot be gone on from. To be called every second or so.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        let all: Vec<(Namespace, Arc<Moment>)> = {
            let mut kept = self.lock();
            kept.values_mut().for_each(|kept| kept.retain(|one| now.saturating_duration_since(one.used) < KEPT_FOR));
            kept.retain(|_, kept| !kept.is_empty());
            kept.shrink_to_fit();
            let each = kept.iter().flat_map(|(name, kept)| kept.iter().map(|one| (name.clone(), one.moment())));
            each.collect()
        };
        for (namespace, moment) in all {
            let changes = match self.registry.look(&namespace, &moment.query, Some(moment.cursor())) {
                Look::Changes(changes) => Some(changes.len()),
                Look::Snapshot(_) => None,
            };
            if let Some(kept) = self.lock().get_mut(&namespace) {
                kept.retain_mut(|one| {
                    !one.is(&moment) || changes.is_some_and(|changes| one.weigh(&self.budget, &namespace, changes))
                });
            }
        }
    }

    /// Forgets all.
    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Whether an answer that begins now can show this moment. `late`: also when something has changed since.
    fn serves(&self, namespace: &Namespace, moment: &Moment, late: bool) -> bool {
        match self.registry.look(namespace, &moment.query, Some(moment.cursor())) {
            Look::Changes(changes) => changes.is_empty() || (late && moment.is_young()),
            Look::Snapshot(_) => false,
        }
    }

    /// The latest moment of a query, and how many there are.
    fn newest(&self, namespace: &Namespace, query: &Query) -> Option<(Arc<Moment>, usize)> {
        let kept = self.lock();
        let mut of_query = kept.get(namespace)?.iter().filter(|one| one.is_of(query));
        let count = of_query.clone().count();
        let newest = of_query.next()?;
        let newest = of_query.fold(newest, |newest, one| if newest.revision() < one.revision() { one } else { newest });
        Some((newest.moment(), count))
    }

    fn find(&self, namespace: &Namespace, query: &Query, cursor: Cursor) -> Option<Arc<Moment>> {
        let mut kept = self.lock();
        let found = kept.get_mut(namespace)?.iter_mut().find(|one| one.is_at(cursor) && one.is_of(query))?;
        found.used = Instant::now();
        Some(found.moment())
    }

    /// Keeps a moment after which there were so many changes, unless callers keep too much already: then its pages are made
    /// again when they are asked for.
    fn keep(&self, namespace: &Namespace, moment: Arc<Moment>, changes: usize) -> Arc<Moment> {
        if let Some(known) = self.find(namespace, &moment.query, moment.cursor()) {
            return known;
        }
        if let Some(one) = Kept::new(&self.budget, namespace, Arc::clone(&moment), changes) {
            let mut kept = self.lock();
            let own = kept.entry(namespace.clone()).or_default();
            if own.len() >= OF_NAMESPACE {
                kept::forget_oldest(own);
            }
            own.push(one);
            if kept.values().map(Vec::len).sum::<usize>() > OF_ALL
                && let Some(longest) = kept.values_mut().max_by_key(|own| own.len())
            {
                kept::forget_oldest(longest);
            }
        }
        moment
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Vec<Kept>>> {
        // Nothing can panic between two related changes of it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
