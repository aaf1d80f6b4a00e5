//! What the server counts, in Prometheus' words.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry as Metrics,
};
use roundsman_health::{Class, Witness};
use roundsman_protocol::{InstanceStatus, status::NamespaceStatus};

use crate::context::Context;

/// Labels of a counter with one dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

/// The methods of the RPC door, in the order of the trait.
pub(crate) const METHODS: [&str; 11] =
    ["register", "deregister", "renew", "drain", "get", "list", "services", "watch", "report", "status", "graph"];

/// Everything that is counted.
pub(crate) struct Meters {
    exported: Metrics,
    pub(crate) registrations: Counter,
    pub(crate) deregistrations: Counter,
    pub(crate) commits: Counter,
    pub(crate) batch: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) store_errors: Counter,
    pub(crate) refills: Counter,
    pub(crate) reinstatements: Counter,
    pub(crate) unrecorded_edges: Counter,
    pub(crate) http_connections: Gauge,
    evictions: Family<Reason, Counter>,
    refusals: Family<Reason, Counter>,
    closed: Family<Reason, Counter>,
    http_closed: Family<Reason, Counter>,
    visits: Family<Outcome, Counter>,
    visit_seconds: Histogram,
    calls: [(Counter, Histogram); METHODS.len()],
    instances: Family<InStatus, Gauge>,
    services: Gauge,
    watches: Gauge,
    connections: Gauge,
    store_up: Gauge,
    unwritten: Gauge,
    brake: Gauge,
    kept: Gauge,
    lag: Gauge<f64, AtomicU64>,
    voided: Counter,
    edges: Gauge,
}

impl Meters {
    #[rustfmt::skip]
    pub(crate) fn new() -> Arc<Self> {
        let mut m = Metrics::with_prefix("roundsman");
        let calls = Family::<Method, Counter>::default();
        let call_seconds = Family::<Method, Histogram, fn() -> Histogram>::new_with_constructor(|| seconds(0.000_001, 14));
        let by_method = METHODS.map(|method| {
            (calls.get_or_create_owned(&Method { method }), call_seconds.get_or_create_owned(&Method { method }))
        });
        let meters = Self {
            registrations: Counter::default(), deregistrations: Counter::default(),
            commits: Counter::default(), batch: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
            commit_seconds: seconds(0.000_05, 10), store_errors: Counter::default(), refills: Counter::default(),
            reinstatements: Counter::default(), unrecorded_edges: Counter::default(), evictions: Family::default(), refusals: Family::default(),
            http_connections: Gauge::default(), closed: Family::default(), http_closed: Family::default(), visits: Family::default(), visit_seconds: seconds(0.000_1, 10),
            calls: by_method, instances: Family::default(), services: Gauge::default(), watches: Gauge::default(),
            connections: Gauge::default(), store_up: Gauge::default(), unwritten: Gauge::default(),
            brake: Gauge::default(), kept: Gauge::default(), lag: Gauge::default(), voided: Counter::default(), edges: Gauge::default(), exported: Metrics::default(),
        };
        m.register("registrations", "Registrations that changed something", meters.registrations.clone());
        m.register("deregistrations", "Deregistrations", meters.deregistrations.clone());
        m.register("commits", "Batches made durable", meters.commits.clone());
        m.register("commit_batch_size", "Changes in a batch", meters.batch.clone());
        m.register("commit_duration_seconds", "Time to make a batch durable", meters.commit_seconds.clone());
        m.register("store_errors", "Times the store did not do what it was asked to", meters.store_errors.clone());
        m.register("store_refills", "Times an emptied store was filled again", meters.refills.clone());
        m.register("evictions", "Evictions by reason", meters.evictions.clone());
        m.register("reinstatements", "Evicted instances that came back within their probation", meters.reinstatements.clone());
        m.register("refusals", "Requests refused, by reason", meters.refusals.clone());
        m.register("rpc_closed", "RPC connections closed by the server, by reason", meters.closed.clone());
        m.register("http_connections", "HTTP connections", meters.http_connections.clone());
        m.register("http_closed", "HTTP connections closed by the server, by reason", meters.http_closed.clone());
        m.register("visits", "Visits by outcome", meters.visits.clone());
        m.register("visit_duration_seconds", "Time a visit took", meters.visit_seconds.clone());
        m.register("rpc_calls", "RPC calls by method", calls);
        m.register("rpc_call_duration_seconds", "Time until an RPC call was answered", call_seconds);
        m.register("instances", "Instances by status", meters.instances.clone());
        m.register("services", "Services with at least one instance", meters.services.clone());
        m.register("watches", "Watches that wait", meters.watches.clone());
        m.register("rpc_connections", "RPC connections", meters.connections.clone());
        m.register("store_up", "Whether the store answers", meters.store_up.clone());
        m.register("store_unwritten", "Observed changes not yet written", meters.unwritten.clone());
        m.register("brake_on", "Whether evictions for silence are held back", meters.brake.clone());
        m.register("kept_connections", "Connections kept open to instances", meters.kept.clone());
        m.register("lag_seconds", "Longest time in the last minute by which this server was late", meters.lag.clone());
        m.register("voided", "Timeouts and expiries of a ttl that were void because this server was late", meters.voided.clone());
        m.register("graph_edges", "Edges of the graph of who calls whom", meters.edges.clone());
        m.register("graph_unrecorded", "Lookups and watches missing in the graph, which is full", meters.unrecorded_edges.clone());
        Arc::new(Self { exported: m, ..meters })
    }

    pub(crate) fn called(&self, method: usize, took: Duration) {
        if let Some((calls, seconds)) = self.calls.get(method) {
            calls.inc();
            seconds.observe(took.as_secs_f64());
        }
    }

    /// Calls answered since the start.
    pub(crate) fn call_count(&self) -> u64 {
        self.calls.iter().map(|(calls, _)| calls.get()).sum()
    }

    pub(crate) fn evicted(&self, reason: &'static str) {
        self.evictions.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn http_closed(&self, reason: &'static str) {
        self.http_closed.get_or_create(&Reason { reason }).inc();
    }

    /// Everything as Prometheus reads it. What is a state and no count is looked up now.
    pub(crate) fn export(&self, context: &Context) -> Result<String, fmt::Error> {
        self.count_instances(&context.registry.overview(None));
        let store = context.store_state.status();
        let gauge = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.watches, u64::try_from(context.registry.watches()).unwrap_or(u64::MAX));
        gauge(&self.connections, context.connections());
        gauge(&self.store_up, u64::from(store.available));
        gauge(&self.unwritten, store.unwritten);
        gauge(&self.brake, u64::from(context.rounds.brake().on));
        let rounds = context.rounds.status();
        gauge(&self.kept, rounds.kept);
        self.lag.set(rounds.lag.recent.as_secs_f64());
        gauge(&self.edges, u64::try_from(context.edges.len()).unwrap_or(u64::MAX));
        let mut page = String::new();
        text::encode(&mut page, &self.exported)?;
        Ok(page)
    }

    fn count_instances(&self, namespaces: &[NamespaceStatus]) {
        let mut counts = [
            (InstanceStatus::Starting, 0),
            (InstanceStatus::Passing, 0),
            (InstanceStatus::Suspect, 0),
            (InstanceStatus::Draining, 0),
            (InstanceStatus::Evicted, 0),
        ];
        let services = namespaces.iter().flat_map(|namespace| &namespace.services);
        for service in services.clone() {
            for (status, count) in &mut counts {
                *count += i64::from(match status {
                    InstanceStatus::Starting => service.starting,
                    InstanceStatus::Passing => service.passing,
                    InstanceStatus::Suspect => service.suspect,
                    InstanceStatus::Draining => service.draining,
                    InstanceStatus::Evicted => service.evicted,
                });
            }
        }
        for (status, count) in counts {
            self.instances.get_or_create(&InStatus { status: status.to_string() }).set(count);
        }
        self.services.set(i64::try_from(services.count()).unwrap_or(i64::MAX));
    }
}

impl Witness for Meters {
    fn visited(&self, class: Class, took: Duration) {
        self.visits.get_or_create(&Outcome { outcome: class.label() }).inc();
        self.visit_seconds.observe(took.as_secs_f64());
    }

    fn voided(&self) {
        self.voided.inc();
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

/// A histogram of durations from `first` seconds on, each bucket three times the one before.
fn seconds(first: f64, buckets: u16) -> Histogram {
    Histogram::new(exponential_buckets(first, 3.0, buckets))
}
