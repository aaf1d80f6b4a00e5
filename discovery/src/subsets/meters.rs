//! How evenly services are shared, as metrics show it.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge},
};

use roundsman_registry::Moved;

use super::{Groups, group::Standing};
use crate::metrics::{Metrics, whole};

/// Most groups whose loads are shown one by one: those with the most clients.
const SHOWN: usize = 64;

/// What is counted.
#[derive(Debug)]
pub(super) struct Meters {
    moves: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Load {
    namespace: String,
    service: String,
    size: u32,
    load: &'static str,
}

/// Looks at the groups when somebody asks.
#[derive(Debug)]
struct Look(Weak<Groups>);

// === impl Meters ===

impl Meters {
    pub(super) fn new(metrics: &mut Metrics) -> Self {
        let help = "Instances that clients with a subset got, in place of others or besides";
        Self { moves: metrics.counter("subset_moves", help) }
    }

    pub(super) fn moved<'m>(&self, moved: impl IntoIterator<Item = &'m Moved>) {
        let gained: usize = moved.into_iter().map(|moved| moved.gained.len()).sum();
        self.moves.inc_by(u64::try_from(gained).unwrap_or(u64::MAX));
    }

    #[cfg(test)]
    pub(super) fn moves(&self) -> u64 {
        self.moves.get()
    }
}

/// Adds how many groups and clients there are, and how evenly instances are shared.
pub(super) fn export(groups: &Arc<Groups>, metrics: &mut Metrics) {
    metrics.collector(Look(Arc::downgrade(groups)));
}

// === impl Look ===

impl Collector for Look {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let groups = self.0.upgrade().map_or_else(Vec::new, |groups| groups.table().all());
        let mut standings: Vec<_> = groups.iter().map(|group| (group.standing(), group)).collect();
        let clients = standings.iter().map(|(standing, _)| standing.clients).sum::<usize>();
        for (name, help, value) in [
            ("subset_groups", "Groups of clients that share the instances of a service.", standings.len()),
            ("subset_clients", "Clients that have a subset of a service.", clients),
        ] {
            let value = ConstGauge::new(whole(value));
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
        }
        standings.sort_by_key(|(standing, _)| std::cmp::Reverse(standing.clients));
        let (loads, mut seen) = (Family::<Load, Gauge>::default(), HashSet::new());
        for (Standing { least, most, .. }, group) in standings.into_iter().take(SHOWN) {
            for (load, value) in [("least", least), ("most", most)] {
                let service = group.key.service().map(ToString::to_string).unwrap_or_default();
                let (namespace, size) = (group.key.namespace.to_string(), group.key.size.get());
                let labels = Load { namespace, service, size, load };
                let gauge = loads.get_or_create_owned(&labels);
                // Two groups may differ in what they filter by only.
                let (value, other) = (i64::from(value), gauge.get());
                gauge.set(match (seen.insert(labels), load) {
                    (true, _) => value,
                    (false, "least") => other.min(value),
                    (false, _) => other.max(value),
                });
            }
        }
        let help = "Clients of the instance that has the fewest and of the one that has the most, by subset.";
        loads.encode(encoder.encode_descriptor("subset_load", help, None, loads.metric_type())?)
    }
}
