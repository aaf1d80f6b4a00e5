//! The whole server at one moment, for `roundsman status` and `GET /api/v1/status`.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    instance::Flip,
    name::{InstanceId, Namespace, ServiceName},
    query::ServiceSummary,
    time::{self, Timestamp},
};

/// The whole server at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This server's name: random, new at each start.
    pub server: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When this was written.
    pub now: Timestamp,
    /// Whether it serves: the store is loaded and the doors are open.
    pub ready: bool,
    /// Where registrations last.
    pub store: StoreStatus,
    /// The rounds.
    pub rounds: RoundsStatus,
    /// Whether evictions are held back.
    pub brake: BrakeStatus,
    /// The doors.
    pub doors: DoorsStatus,
    /// The memory that callers take.
    pub memory: MemoryStatus,
    /// Services by namespace. Over RPC only the caller's namespace.
    pub namespaces: Vec<NamespaceStatus>,
    /// The latest flips of all instances shown, newest first.
    pub recent: Vec<RecentFlip>,
    /// Other servers on the same store. Always empty for now.
    pub replicas: Vec<String>,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `memory`, `sqlite` or `redis`.
    pub kind: String,
    /// Where it is, without credentials.
    pub location: String,
    /// Whether it answered last time.
    pub available: bool,
    /// Since when it is, or is not, available.
    pub since: Timestamp,
    /// What it said when it failed last.
    pub last_error: Option<String>,
    /// Commits since the start.
    pub commits: u64,
    /// Changes that are observed but not yet written.
    pub unwritten: u64,
    /// How often a store that came back empty was filled again.
    pub refills: u64,
    /// Records that could not be read at the start and were put aside.
    pub damaged: u64,
    /// Records that were missing in the store, or there again after their removal, and were set right.
    pub repaired: u64,
}

/// The rounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundsStatus {
    /// Time between two visits of an instance, unless it says otherwise.
    #[serde(with = "time::duration")]
    pub interval: Duration,
    /// Time a visit may take, unless the instance says otherwise.
    #[serde(with = "time::duration")]
    pub timeout: Duration,
    /// Failed visits in a row that evict.
    pub failures: u32,
    /// How long an evicted instance may come back without registering.
    #[serde(with = "time::duration")]
    pub probation: Duration,
    /// Instances under observation.
    pub targets: u64,
    /// Connections kept open to them.
    pub kept: u64,
    /// Visits under way.
    pub in_flight: u64,
    /// Visits since the start.
    pub visits: u64,
    /// Of these: failed.
    pub failed: u64,
    /// Evictions since the start.
    pub evictions: u64,
    /// Reinstatements since the start.
    pub reinstatements: u64,
    /// Stored instances that were not visited yet since the start; evictions for silence wait for them.
    pub unvisited: u64,
    /// Visits that wait for their turn.
    pub queued: u64,
    /// Whether this server itself lagged.
    pub lag: LagStatus,
    /// Host names of instances.
    pub names: NamesStatus,
}

/// How late this server was in doing what was due: because it was stopped, starved of CPU time, or busy. What it did not
/// hear in that time counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagStatus {
    /// The longest lag of the last minute.
    #[serde(with = "time::duration")]
    pub recent: Duration,
    /// The longest lag since the start.
    #[serde(with = "time::duration")]
    pub worst: Duration,
    /// When a lag last made timeouts void.
    pub last: Option<Timestamp>,
    /// Timeouts and expiries of a ttl that were void.
    pub voided: u64,
}

/// The host names under which instances are registered, and what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesStatus {
    /// Names whose addresses are known.
    pub known: u64,
    /// Of these: names whose last known addresses are used on, because no name server answers.
    pub stale: u64,
    /// Questions to name servers since the start.
    pub asked: u64,
    /// Of these: without an answer.
    pub unanswered: u64,
}

/// What callers make this server keep in memory, as far as it is accounted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// The most that it may be, in bytes: `--max-memory`.
    pub limit: u64,
    /// How much it is.
    pub used: u64,
    /// Requests that were refused because of it.
    pub refused: u64,
}

/// The brake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeStatus {
    /// Whether evictions for silence are held back.
    pub on: bool,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Instances that fell silent within the last interval.
    pub silent: u64,
    /// Instances that are visited.
    pub visited: u64,
    /// Evictions held back at this moment.
    pub held: u64,
}

/// The doors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorsStatus {
    /// Where the RPC door listens.
    pub rpc: Option<String>,
    /// Where the HTTP door listens.
    pub http: Option<String>,
    /// RPC connections.
    pub connections: u64,
    /// Calls since the start.
    pub calls: u64,
    /// Watches that wait.
    pub watches: u64,
}

/// A namespace and its services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceStatus {
    /// The namespace.
    pub namespace: Namespace,
    /// Its services, sorted by name.
    pub services: Vec<ServiceSummary>,
}

/// A flip, and whose it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentFlip {
    /// The namespace.
    pub namespace: Namespace,
    /// The service.
    pub name: ServiceName,
    /// The instance.
    pub id: InstanceId,
    /// Where it listens, or listened.
    pub address: Arc<str>,
    /// What happened.
    pub flip: Flip,
}
