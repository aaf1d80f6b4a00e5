//! One connection's part in the graph: what it looks up, and what it follows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use roundsman_protocol::{Callee, Clock, Namespace, ServiceName, Timestamp, limits};

use super::{Edges, Tally, lock};

/// A watch is answered, and comes again after the way there and back: so long the connection counts as following on.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// Most edges that one connection keeps a pointer to, and most that it follows at a time: what one query may name.
const MAX_KNOWN: usize = limits::MAX_QUERY_SERVICES;

/// One connection of a service: counts what it asks for, until it is dropped.
#[derive(Debug)]
pub(crate) struct Tracker {
    edges: Arc<Edges>,
    number: u64,
    follower: Arc<Follower>,
    known: HashMap<Callee, Arc<Tally>>,
}

/// What one connection follows.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) namespace: Namespace,
    pub(super) caller: ServiceName,
    clock: Clock,
    follows: Mutex<HashMap<Callee, Follow>>,
}

#[derive(Clone, Copy, Debug)]
struct Follow {
    /// Watches that wait.
    waiting: u32,
    /// When the last one was answered.
    answered: Timestamp,
}

/// A watch that waits; dropped when it is answered or given up.
#[derive(Debug)]
pub(crate) struct Watching {
    follower: Arc<Follower>,
    callees: Vec<Callee>,
}

// === impl Tracker ===

impl Tracker {
    pub(super) fn new(edges: Arc<Edges>, number: u64, follower: Arc<Follower>) -> Self {
        Self { edges, number, follower, known: HashMap::new() }
    }

    /// Counts a lookup.
    pub(crate) fn looked_up(&mut self, service: &ServiceName) {
        let now = self.edges.clock.now();
        self.count(&Callee::Service(service.clone()), 1, now);
    }

    /// Counts a lookup of each of these services, or of everything when none is named.
    pub(crate) fn listed(&mut self, services: &[ServiceName]) {
        let now = self.edges.clock.now();
        for callee in callees(services) {
            self.count(&callee, 1, now);
        }
    }

    /// Counts the connection as following these services, or everything when none is named, while the watch waits.
    pub(crate) fn watches(&mut self, services: &[ServiceName]) -> Watching {
        let now = self.edges.clock.now();
        let callees: Vec<Callee> = callees(services).collect();
        for callee in &callees {
            self.count(callee, 0, now);
        }
        Watching { callees: self.follower.begin(callees, now), follower: Arc::clone(&self.follower) }
    }

    fn count(&mut self, callee: &Callee, lookups: u64, now: Timestamp) {
        if let Some(tally) = self.known.get(callee) {
            return tally.count(lookups, now);
        }
        let Some(tally) = self.edges.tally(&self.follower.namespace, &self.follower.caller, callee) else { return };
        tally.count(lookups, now);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(callee.clone(), tally);
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        lock(&self.edges.followers).remove(&self.number);
    }
}

fn callees(services: &[ServiceName]) -> impl Iterator<Item = Callee> {
    let everything = services.is_empty().then_some(Callee::Everything);
    services.iter().cloned().map(Callee::Service).chain(everything)
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(namespace: Namespace, caller: ServiceName, clock: Clock) -> Self {
        Self { namespace, caller, clock, follows: Mutex::default() }
    }

    /// What it follows.
    pub(super) fn followed(&self, now: Timestamp) -> Vec<Callee> {
        let follows = lock(&self.follows);
        follows.iter().filter(|(_, follow)| follow.lasts(now)).map(|(callee, _)| callee.clone()).collect()
    }

    /// A watch begins. Returns those of its services that are counted.
    fn begin(&self, mut callees: Vec<Callee>, now: Timestamp) -> Vec<Callee> {
        let mut follows = lock(&self.follows);
        follows.retain(|_, follow| follow.lasts(now));
        callees.retain(|callee| {
            if let Some(follow) = follows.get_mut(callee) {
                follow.waiting += 1;
                return true;
            }
            let fits = follows.len() < MAX_KNOWN;
            if fits {
                follows.insert(callee.clone(), Follow { waiting: 1, answered: now });
            }
            fits
        });
        callees
    }

    fn end(&self, callees: &[Callee]) {
        let now = self.clock.now();
        let mut follows = lock(&self.follows);
        for callee in callees {
            if let Some(follow) = follows.get_mut(callee) {
                follow.waiting = follow.waiting.saturating_sub(1);
                follow.answered = now;
            }
        }
    }
}

impl Follow {
    fn lasts(&self, now: Timestamp) -> bool {
        self.waiting > 0 || now.since(self.answered) < LINGER
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.follower.end(&self.callees);
    }
}
