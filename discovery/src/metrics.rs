//! What the server counts, in Prometheus' words: a page to which each component adds what it counts, and where
//! nothing is known of any component.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

/// Labels of a counter that tells why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// Counts by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reasons(Family<Reason, Counter>);

/// The metrics of all components. Each is added under its name beside the component that counts it.
pub(crate) struct Metrics(Registry);

/// A value that is looked up when somebody asks for it.
struct Reading<F> {
    name: &'static str,
    help: &'static str,
    read: F,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        Self(Registry::with_prefix("roundsman"))
    }

    /// Adds a metric of whatever kind.
    pub(crate) fn add<M: Metric + Clone>(&mut self, name: impl Into<String>, help: &'static str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }

    /// A count of what happened.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.add(name, help, &counter);
        counter
    }

    /// A count of what happened, by reason.
    pub(crate) fn reasons(&mut self, name: &'static str, help: &'static str) -> Reasons {
        let reasons = Reasons::default();
        self.add(name, help, &reasons.0);
        reasons
    }

    /// How many there are, as whoever has it says.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.add(name, help, &gauge);
        gauge
    }

    /// Times; see [`seconds`].
    pub(crate) fn seconds(&mut self, name: &'static str, help: &'static str, first: f64, buckets: u16) -> Histogram {
        let histogram = seconds(first, buckets);
        self.add(name, help, &histogram);
        histogram
    }

    /// A state that is looked up when the page is asked for.
    pub(crate) fn reading<N, F>(&mut self, name: &'static str, help: &'static str, read: F)
    where
        N: EncodeGaugeValue,
        F: Fn() -> N + Send + Sync + 'static,
    {
        self.collector(Reading { name, help, read });
    }

    /// States that are looked up together when the page is asked for.
    pub(crate) fn collector(&mut self, collector: impl Collector) {
        self.0.register_collector(Box::new(collector));
    }

    /// Everything as Prometheus reads it.
    ///
    /// # Errors
    /// Never, as far as is known: writing into memory does not fail.
    pub(crate) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.0)?;
        Ok(page)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A histogram of durations from `first` seconds on, each bucket three times the one before.
pub(crate) fn seconds(first: f64, buckets: u16) -> Histogram {
    Histogram::new(exponential_buckets(first, 3.0, buckets))
}

/// A number of things as a gauge has it.
pub(crate) fn whole(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

// === impl Reasons ===

impl Reasons {
    pub(crate) fn count(&self, reason: &'static str) {
        self.0.get_or_create(&Reason { reason }).inc();
    }
}

// === impl Reading ===

impl<F, N> Collector for Reading<F>
where
    F: Fn() -> N + Send + Sync + 'static,
    N: EncodeGaugeValue,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let value = ConstGauge::new((self.read)());
        value.encode(encoder.encode_descriptor(self.name, self.help, None, value.metric_type())?)
    }
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use super::*;

    #[test]
    fn a_reading_is_looked_up_when_the_page_is_asked_for() {
        let (mut metrics, value) = (Metrics::new(), Arc::new(AtomicI64::new(1)));
        let read = Arc::clone(&value);
        metrics.reading("waiting", "What waits.", move || read.load(Ordering::Relaxed));
        metrics.reasons("refusals", "Refusals").count("full");
        assert!(metrics.page().unwrap().contains("roundsman_waiting 1\n"));
        value.store(7, Ordering::Relaxed);
        let page = metrics.page().unwrap();
        assert!(page.contains("roundsman_waiting 7\n") && page.contains("# TYPE roundsman_waiting gauge"), "{page}");
        assert!(page.contains("roundsman_refusals_total{reason=\"full\"} 1\n"), "{page}");
    }
}
