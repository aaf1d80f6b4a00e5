//! What is counted of the rounds: their visits, their brake, and how late this server was.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use roundsman_health::{Class, Rounds, Witness};

use crate::metrics::{Metrics, whole};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Counts visits.
#[derive(Debug)]
pub(crate) struct Visits {
    outcomes: Family<Outcome, Counter>,
    seconds: Histogram,
    voided: Counter,
}

// === impl Visits ===

impl Visits {
    pub(crate) fn new(metrics: &mut Metrics) -> Arc<Self> {
        let outcomes = Family::default();
        metrics.add("visits", "Visits by outcome", &outcomes);
        let voided = "Timeouts and expiries of a ttl that were void because this server was late";
        Arc::new(Self {
            outcomes,
            seconds: metrics.seconds("visit_duration_seconds", "Time a visit took", 0.000_1, 10),
            voided: metrics.counter("voided", voided),
        })
    }
}

impl Witness for Visits {
    fn visited(&self, class: Class, took: Duration) {
        self.outcomes.get_or_create(&Outcome { outcome: class.label() }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    fn voided(&self) {
        self.voided.inc();
    }
}

/// Adds how the rounds stand.
pub(crate) fn export(rounds: &Rounds, metrics: &mut Metrics) {
    let braked = rounds.clone();
    let brake = move || i64::from(braked.brake().on);
    metrics.reading("brake_on", "Whether evictions for silence are held back.", brake);
    let keeping = rounds.clone();
    let kept = move || whole(keeping.status().kept);
    metrics.reading("kept_connections", "Connections kept open to instances.", kept);
    let late = rounds.clone();
    let lag = move || late.status().lag.recent.as_secs_f64();
    metrics.reading("lag_seconds", "Longest time in the last minute by which this server was late.", lag);
}
