//! Which service calls which: what connections that said their name looked up and follow. No sockets, no tasks.
//!
//! Bounded, whatever callers make up: there are at most `limit` edges. When they are used up, those that nobody has used for
//! long make room; as long as none does, new ones are not recorded and a metric counts them.

mod tracker;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use roundsman_protocol::{Callee, Clock, Edge, Graph, Namespace, ServiceName, Timestamp};

use self::tracker::Follower;
pub(crate) use self::tracker::{Tracker, Watching};
use crate::metrics::{Metrics, whole};

/// An edge that was not used for so long may make room for another. Longer than any watch waits, so that what is watched stays.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// How often a full table is searched for edges that may go: a flood of new names must not cost a search each.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Who calls whom, in all namespaces.
#[derive(Debug)]
pub(crate) struct Edges {
    limit: usize,
    clock: Clock,
    table: Mutex<Table>,
    /// The connections that said who they are, by number.
    followers: Mutex<HashMap<u64, Arc<Follower>>>,
    next: AtomicU64,
    unrecorded: Counter,
}

#[derive(Debug, Default)]
struct Table {
    namespaces: HashMap<Namespace, HashMap<Pair, Arc<Tally>>>,
    len: usize,
    tidied: Timestamp,
}

/// Caller and callee.
type Pair = (ServiceName, Callee);

/// What is counted about an edge. Connections keep a pointer to it, so that a lookup takes no lock.
#[derive(Debug, Default)]
struct Tally {
    lookups: AtomicU64,
    /// In milliseconds, as [`Timestamp`] has it.
    last: AtomicU64,
}

// === impl Edges ===

impl Edges {
    /// Knows at most `limit` edges, and counts what is missing because of that.
    pub(crate) fn new(limit: usize, clock: Clock, metrics: &mut Metrics) -> Arc<Self> {
        let unrecorded = metrics.counter("graph_unrecorded", "Lookups and watches missing in the graph, which is full");
        let (table, followers) = (Mutex::default(), Mutex::default());
        let edges = Arc::new(Self { limit, clock, table, followers, next: AtomicU64::new(0), unrecorded });
        let counted = Arc::clone(&edges);
        metrics.reading("graph_edges", "Edges of the graph of who calls whom.", move || whole(counted.len()));
        edges
    }

    /// What one connection of `caller` uses for as long as it lasts.
    pub(crate) fn track(self: &Arc<Self>, namespace: Namespace, caller: ServiceName) -> Tracker {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let follower = Arc::new(Follower::new(namespace, caller, self.clock.clone()));
        lock(&self.followers).insert(number, Arc::clone(&follower));
        Tracker::new(Arc::clone(self), number, follower)
    }

    /// The edges of a namespace. `services`: those that have an instance, sorted; `since`: when the server started.
    pub(crate) fn graph(&self, namespace: &Namespace, services: Vec<ServiceName>, since: Timestamp) -> Graph {
        let now = self.clock.now();
        let watching = self.watching(namespace, now);
        let edge = |((caller, callee), tally): (&Pair, &Arc<Tally>)| Edge {
            caller: caller.clone(),
            callee: callee.clone(),
            lookups: tally.lookups.load(Ordering::Relaxed),
            watching: watching.get(&(caller.clone(), callee.clone())).copied().unwrap_or_default(),
            last: tally.last(),
        };
        let table = lock(&self.table);
        let mut edges: Vec<Edge> = table.namespaces.get(namespace).into_iter().flatten().map(edge).collect();
        drop(table);
        edges.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
        Graph { namespace: namespace.clone(), since, now, services, edges, unrecorded: self.unrecorded.get() }
    }

    /// How many edges there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).len
    }

    /// How many connections follow what, by edge.
    fn watching(&self, namespace: &Namespace, now: Timestamp) -> HashMap<Pair, u64> {
        let followers: Vec<Arc<Follower>> =
            lock(&self.followers).values().filter(|follower| follower.namespace == *namespace).cloned().collect();
        let mut watching = HashMap::new();
        for follower in followers {
            for callee in follower.followed(now) {
                *watching.entry((follower.caller.clone(), callee)).or_default() += 1;
            }
        }
        watching
    }

    /// The counts of an edge, new or old; `None` when there are too many.
    fn tally(&self, namespace: &Namespace, caller: &ServiceName, callee: &Callee) -> Option<Arc<Tally>> {
        let pair = (caller.clone(), callee.clone());
        let mut table = lock(&self.table);
        if let Some(tally) = table.namespaces.get(namespace).and_then(|pairs| pairs.get(&pair)) {
            return Some(Arc::clone(tally));
        }
        if table.len >= self.limit {
            table.tidy(self.clock.now());
        }
        if table.len >= self.limit {
            self.unrecorded.inc();
            return None;
        }
        let tally = Arc::new(Tally::default());
        table.namespaces.entry(namespace.clone()).or_default().insert(pair, Arc::clone(&tally));
        table.len += 1;
        Some(tally)
    }
}

// === impl Table ===

impl Table {
    /// Drops what was not used for long. Not what a connection still points to: it would go on counting where nobody looks.
    fn tidy(&mut self, now: Timestamp) {
        if now.since(self.tidied) < TIDY_EVERY {
            return;
        }
        self.tidied = now;
        let used = |tally: &Arc<Tally>| Arc::strong_count(tally) > 1 || now.since(tally.last()) < FORGET_AFTER;
        self.namespaces.retain(|_, pairs| {
            pairs.retain(|_, tally| used(tally));
            !pairs.is_empty()
        });
        self.len = self.namespaces.values().map(HashMap::len).sum();
    }
}

// === impl Tally ===

impl Tally {
    fn count(&self, lookups: u64, now: Timestamp) {
        self.lookups.fetch_add(lookups, Ordering::Relaxed);
        // Many connections share it: what is so already need not be written again.
        if self.last.load(Ordering::Relaxed) != now.as_millis() {
            self.last.store(now.as_millis(), Ordering::Relaxed);
        }
    }

    fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.last.load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
