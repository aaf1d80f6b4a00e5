//! What the writer counts.

use std::sync::Arc;

use prometheus_client::metrics::{
    counter::Counter,
    histogram::{Histogram, exponential_buckets},
};

use crate::metrics::{Metrics, Reasons};

/// What the writer counts.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(super) registrations: Counter,
    pub(super) deregistrations: Counter,
    pub(super) commits: Counter,
    pub(super) batch: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) store_errors: Counter,
    pub(super) refills: Counter,
    pub(super) conflicts: Counter,
    pub(super) reinstatements: Counter,
    evictions: Reasons,
}

// === impl Meters ===

impl Meters {
    pub(crate) fn new(metrics: &mut Metrics) -> Arc<Self> {
        let batch = Histogram::new(exponential_buckets(1.0, 4.0, 7));
        metrics.add("commit_batch_size", "Changes in a batch", &batch);
        let (back, made) = ("Evicted instances that came back within their probation", "Time to make a batch durable");
        Arc::new(Self {
            registrations: metrics.counter("registrations", "Registrations that changed something"),
            deregistrations: metrics.counter("deregistrations", "Deregistrations"),
            commits: metrics.counter("commits", "Batches made durable"),
            batch,
            commit_seconds: metrics.seconds("commit_duration_seconds", made, 0.000_05, 10),
            store_errors: metrics.counter("store_errors", "Times the store did not do what it was asked to"),
            conflicts: metrics.counter("store_conflicts", "Times another server changed the same instances first"),
            refills: metrics.counter("store_refills", "Times an emptied store was filled again"),
            reinstatements: metrics.counter("reinstatements", back),
            evictions: metrics.reasons("evictions", "Evictions by reason"),
        })
    }

    pub(super) fn evicted(&self, reason: &'static str) {
        self.evictions.count(reason);
    }
}
