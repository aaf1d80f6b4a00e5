//! What is counted of calls, whichever door they come in by: how many, how long, which were refused.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use roundsman_protocol::DiscoveryError;

use crate::{
    method::Method,
    metrics::{Metrics, Reasons, seconds},
    principal::Door,
};

/// What the HTTP door has a page for.
const PAGES: [Method; 2] = [Method::Status, Method::Graph];

/// What is counted of calls.
#[derive(Debug)]
pub(crate) struct Meters {
    refusals: Reasons,
    rpc: Calls,
    http: Calls,
}

/// The calls of one door.
#[derive(Debug)]
pub(crate) struct Calls {
    by_method: [Option<(Counter, Histogram)>; Method::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMethod {
    method: &'static str,
}

// === impl Meters ===

impl Meters {
    pub(crate) fn new(metrics: &mut Metrics) -> Self {
        let refusals = metrics.reasons("refusals", "Requests refused, by reason");
        let rpc =
            Calls::new(metrics, Door::Rpc, "RPC calls by method", "Time until an RPC call was answered", &Method::ALL);
        let http =
            Calls::new(metrics, Door::Http, "HTTP calls by method", "Time until an HTTP call was answered", &PAGES);
        Self { refusals, rpc, http }
    }

    /// The calls that came in by this door.
    pub(crate) fn of(&self, door: Door) -> &Calls {
        match door {
            Door::Rpc => &self.rpc,
            Door::Http => &self.http,
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, error: &DiscoveryError) {
        self.refused_as(match error {
            DiscoveryError::Invalid(_) => "invalid",
            DiscoveryError::NoSuchService { .. } => "no-such-service",
            DiscoveryError::NonePassing { .. } => "none-passing",
            DiscoveryError::NotRegistered { .. } => "not-registered",
            DiscoveryError::Replaced { .. } => "replaced",
            DiscoveryError::Blocked { .. } => "blocked",
            DiscoveryError::StoreUnavailable { .. } => "store-unavailable",
            DiscoveryError::LimitReached { .. } => "limit-reached",
            DiscoveryError::ShuttingDown => "shutting-down",
        });
    }

    /// Counts a refusal by a door, for a reason of its own.
    pub(crate) fn refused_as(&self, reason: &'static str) {
        self.refusals.count(reason);
    }
}

// === impl Calls ===

impl Calls {
    fn new(metrics: &mut Metrics, door: Door, count: &'static str, time: &'static str, methods: &[Method]) -> Self {
        let calls = Family::<ByMethod, Counter>::default();
        let times = Family::<ByMethod, Histogram, fn() -> Histogram>::new_with_constructor(|| seconds(0.000_001, 14));
        metrics.add(format!("{door}_calls"), count, &calls);
        metrics.add(format!("{door}_call_duration_seconds"), time, &times);
        let by_method = Method::ALL.map(|method| {
            let label = ByMethod { method: method.name() };
            let meter = || (calls.get_or_create_owned(&label), times.get_or_create_owned(&label));
            methods.contains(&method).then(meter)
        });
        Self { by_method }
    }

    /// Counts a call that was answered.
    pub(crate) fn called(&self, method: Method, took: Duration) {
        if let Some(Some((calls, seconds))) = self.by_method.get(usize::from(method.number())) {
            calls.inc();
            seconds.observe(took.as_secs_f64());
        }
    }

    /// Calls answered since the start.
    pub(crate) fn count(&self) -> u64 {
        self.by_method.iter().flatten().map(|(calls, _)| calls.get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_under_its_method_at_its_door() {
        let mut metrics = Metrics::new();
        let meters = Meters::new(&mut metrics);
        for method in Method::ALL {
            meters.of(Door::Rpc).called(method, Duration::from_millis(1));
        }
        meters.of(Door::Http).called(Method::Graph, Duration::ZERO);
        meters.of(Door::Http).called(Method::Get, Duration::ZERO);
        meters.refused(&DiscoveryError::ShuttingDown);
        let page = metrics.page().unwrap();
        for method in Method::ALL {
            assert!(page.contains(&format!("roundsman_rpc_calls_total{{method=\"{}\"}} 1\n", method.name())), "{page}");
        }
        assert!(page.contains("roundsman_http_calls_total{method=\"graph\"} 1\n"), "{page}");
        assert!(page.contains("roundsman_refusals_total{reason=\"shutting-down\"} 1\n"), "{page}");
        let counted = (meters.of(Door::Rpc).count(), meters.of(Door::Http).count());
        assert_eq!(counted, (Method::ALL.len() as u64, 1), "a page of its own only");
    }
}
