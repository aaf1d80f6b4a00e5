//! Histograms and medians.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::error::{Context, Result};

/// What takes longer counts as this: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// How long things took, with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

// === impl Latencies ===

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Histogram::new_with_bounds(1, LONGEST, 3).map(Self).context("making a histogram")
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("adding up histograms")
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all, between 0 and 1, did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    pub(crate) fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// The middle value; of an even number the mean of the two in the middle. 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    match values.get(middle.wrapping_sub(1)) {
        Some(lower) if values.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
        _ => upper,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!([median([]), median([7.0]), median([9.0, 1.0]), median([9.0, 1.0, 2.0])], [0.0, 7.0, 5.0, 2.0]);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=100 {
            latencies.record(Duration::from_micros(micros));
        }
        let mut sum = Latencies::new().unwrap();
        sum.add(&latencies).unwrap();
        assert_eq!(sum.count(), 100);
        assert!(sum.p50().abs_diff(Duration::from_micros(50)) < Duration::from_nanos(100));
        assert!(sum.p99().abs_diff(Duration::from_micros(99)) < Duration::from_nanos(100));
    }
}
