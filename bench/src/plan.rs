//! How much of everything, and for how long.

use std::time::Duration;

/// The sizes and times of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Whether this is the short run, whose figures mean little.
    pub(crate) quick: bool,
    /// Rounds; in each round everything that is compared has its turn, and the median of the rounds counts.
    pub(crate) rounds: usize,
    /// How long one measurement of reads lasts.
    pub(crate) reads: Duration,
    /// How long one measurement of durable writes lasts.
    pub(crate) writes: Duration,
    /// Services that are looked up, of three instances each.
    pub(crate) services: u32,
    /// Instances that are killed in each of the two ways.
    pub(crate) kills: usize,
    /// Watchers that see them go.
    pub(crate) mourners: usize,
    /// Instances that are killed while calls go on.
    pub(crate) call_kills: usize,
    /// Calls a second meanwhile.
    pub(crate) call_rate: u32,
    /// Instances that hang, one after the other.
    pub(crate) hangs: usize,
    /// How long instances are called that are slow, hang or fail.
    pub(crate) faults: Duration,
    /// Services that are resolved to measure the memory of it.
    pub(crate) resolved: u32,
    /// Instances of each of these.
    pub(crate) resolved_each: u32,
    /// Registrations that the watchers are told of.
    pub(crate) births: usize,
    /// Connections of these watchers.
    pub(crate) watcher_connections: usize,
    /// Watches on each of these connections.
    pub(crate) watches_each: usize,
    /// Watches that are left pending on each of 100 connections.
    pub(crate) pending_each: usize,
    /// Instances that are visited: so many, or what the limit of open files allows.
    pub(crate) targets: u32,
    /// Time between two visits.
    pub(crate) interval: Duration,
    /// For how many intervals visits are counted.
    pub(crate) intervals: u32,
    /// Instances in memory and in the store.
    pub(crate) instances: u32,
    /// Instances that hang; in one measurement eight fifths of it, in one two fifths.
    pub(crate) hung: u32,
    /// Deaths beside them, and births.
    pub(crate) deaths: usize,
    /// How long callers look up beside an attack, and without one.
    pub(crate) under_attack: Duration,
    /// Lists that are left unread; half as many are read by connections that idle then.
    pub(crate) unread_lists: usize,
    /// Changes of each of ten namespaces.
    pub(crate) logged_changes: usize,
    /// Watches with as many names as they may have.
    pub(crate) wide_watches: usize,
    /// Clients who mean well.
    pub(crate) good_clients: usize,
    /// Clients that come back after a restart.
    pub(crate) returning: usize,
    /// Sizes of the service that is changed.
    pub(crate) sizes: &'static [u32],
    /// Numbers of namespaces at which the clock is looked at.
    pub(crate) namespaces: &'static [u32],
    /// Instances of the namespace that flips all the time.
    pub(crate) busy: u32,
    /// Instances that very many watch, and how many come at once for all of them.
    pub(crate) watched: u32,
    pub(crate) snapshot_watchers: usize,
    /// Watchers of them that return and know nearly everything.
    pub(crate) digest_watchers: usize,
    /// Clients with a subset each, and of how many instances.
    pub(crate) subset_clients: u32,
    pub(crate) subset_instances: u32,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(quick: bool) -> Self {
        if quick { Self::short() } else { Self::full() }
    }

    fn full() -> Self {
        Self {
            quick: false,
            rounds: 5,
            reads: Duration::from_millis(1_500),
            writes: Duration::from_secs(3),
            services: 10_000,
            kills: 50,
            mourners: 100,
            call_kills: 20,
            call_rate: 1_000,
            hangs: 5,
            faults: Duration::from_secs(8),
            resolved: 10,
            resolved_each: 1_000,
            births: 60,
            watcher_connections: 100,
            watches_each: 10,
            pending_each: 100,
            targets: 60_000,
            interval: Duration::from_secs(5),
            intervals: 4,
            instances: 100_000,
            hung: 5_000,
            deaths: 25,
            under_attack: Duration::from_secs(5),
            unread_lists: 200,
            logged_changes: 5_000,
            wide_watches: 1_000,
            good_clients: 10_000,
            returning: 2_000,
            sizes: &[100, 1_000, 10_000, 50_000, 100_000],
            namespaces: &[1, 10, 100, 1_000, 10_000, 30_000, 100_000],
            busy: 1_000,
            watched: 50_000,
            snapshot_watchers: 1_000,
            digest_watchers: 10_000,
            subset_clients: 2_000,
            subset_instances: 1_000,
        }
    }

    fn short() -> Self {
        Self {
            quick: true,
            rounds: 1,
            reads: Duration::from_millis(250),
            writes: Duration::from_millis(500),
            services: 1_000,
            kills: 5,
            mourners: 20,
            call_kills: 3,
            call_rate: 1_000,
            hangs: 1,
            faults: Duration::from_secs(2),
            resolved: 3,
            resolved_each: 200,
            births: 5,
            watcher_connections: 20,
            watches_each: 5,
            pending_each: 10,
            targets: 500,
            interval: Duration::from_secs(1),
            intervals: 2,
            instances: 5_000,
            hung: 250,
            deaths: 5,
            under_attack: Duration::from_millis(500),
            unread_lists: 20,
            logged_changes: 100,
            wide_watches: 50,
            good_clients: 500,
            returning: 100,
            sizes: &[100, 1_000],
            namespaces: &[1, 10, 100],
            busy: 100,
            watched: 2_000,
            snapshot_watchers: 20,
            digest_watchers: 50,
            subset_clients: 50,
            subset_instances: 100,
        }
    }
}
