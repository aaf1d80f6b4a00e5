//! What is registered, as metrics show it.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{family::Family, gauge::ConstGauge, gauge::Gauge},
};
use roundsman_protocol::InstanceStatus;
use roundsman_registry::Registry;

use crate::metrics::{Metrics, whole};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: String,
}

/// Counts instances and services when somebody asks.
#[derive(Debug)]
struct Inventory {
    registry: Arc<Registry>,
}

/// Adds what is registered, and who waits for changes of it.
pub(crate) fn export(registry: &Arc<Registry>, metrics: &mut Metrics) {
    metrics.collector(Inventory { registry: Arc::clone(registry) });
    let registry = Arc::clone(registry);
    metrics.reading("watches", "Watches that wait.", move || whole(registry.watches()));
}

impl Collector for Inventory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let namespaces = self.registry.overview(None);
        let services = || namespaces.iter().flat_map(|namespace| &namespace.services);
        let instances = Family::<InStatus, Gauge>::default();
        let count = |status: InstanceStatus, count: i64| {
            instances.get_or_create(&InStatus { status: status.to_string() }).inc_by(count);
        };
        // Each status is shown, also one that nobody has.
        count(InstanceStatus::Starting, services().map(|service| i64::from(service.starting)).sum());
        count(InstanceStatus::Passing, services().map(|service| i64::from(service.passing)).sum());
        count(InstanceStatus::Suspect, services().map(|service| i64::from(service.suspect)).sum());
        count(InstanceStatus::Draining, services().map(|service| i64::from(service.draining)).sum());
        count(InstanceStatus::Evicted, services().map(|service| i64::from(service.evicted)).sum());
        let descriptor =
            encoder.encode_descriptor("instances", "Instances by status.", None, instances.metric_type())?;
        instances.encode(descriptor)?;
        let services = ConstGauge::new(whole(services().count()));
        let help = "Services with at least one instance.";
        services.encode(encoder.encode_descriptor("services", help, None, services.metric_type())?)
    }
}
