//! How busy an instance is with our calls, and how fast it answered them.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// After so long a latency counts a third of what it did.
const DECAY_MILLIS: f32 = 10_000.0;
/// What an instance is thought to take, in milliseconds, before it has answered anything.
const UNKNOWN: f32 = 10.0;
/// No latency counts less, in milliseconds: among idle, fast instances the calls under way decide.
const LEAST: f32 = 0.1;
/// A failure counts as at least so slow, in milliseconds.
const FAILURE: f32 = 1_000.0;

/// What is known of one instance; updated without locks.
#[derive(Debug)]
pub(crate) struct Load {
    under_way: AtomicU32,
    /// The average latency in milliseconds (an `f32`, upper half) and when it was that (lower half, milliseconds
    /// since `origin`; after 49 days it begins anew, which only makes a forgotten value count once more).
    average: AtomicU64,
    origin: Instant,
}

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        Self { under_way: AtomicU32::new(0), average: AtomicU64::new(packed(UNKNOWN, 0)), origin: Instant::now() }
    }
}

impl Load {
    /// How long a call would take about now; only good for comparisons.
    pub(crate) fn cost(&self) -> f32 {
        let under_way = u16::try_from(self.under_way.load(Ordering::Relaxed)).unwrap_or(u16::MAX);
        let average = decayed(self.average.load(Ordering::Relaxed), self.now());
        average.max(LEAST) * (f32::from(under_way) + 1.0)
    }

    /// A call begins.
    pub(crate) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that took so long is over; `answered` says how it went, if that is known.
    pub(crate) fn end(&self, took: Duration, answered: Option<bool>) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let latency = millis(took);
        match answered {
            Some(true) => self.note(latency),
            Some(false) => self.note(latency.max(FAILURE)),
            // Given up without a word. If that took long, it tells something; if not, there may have been no call at all.
            None if latency > decayed(self.average.load(Ordering::Relaxed), self.now()) => self.note(latency),
            None => {}
        }
    }

    /// Notes a latency: a higher one counts at once, a lower one bit by bit.
    fn note(&self, latency: f32) {
        let now = self.now();
        let noted = |average: u64| {
            let faded = decayed(average, now);
            let (before, _) = unpacked(average);
            let weight = if before > 0.0 { faded / before } else { 0.0 };
            let next = if latency >= faded { latency } else { faded + latency * (1.0 - weight) };
            packed(next, now)
        };
        self.average.update(Ordering::Relaxed, Ordering::Relaxed, noted);
    }

    #[allow(clippy::cast_possible_truncation, reason = "wraps after 49 days, see `average`")]
    fn now(&self) -> u32 {
        self.origin.elapsed().as_millis() as u32
    }
}

fn packed(average: f32, at: u32) -> u64 {
    (u64::from(average.to_bits()) << 32) | u64::from(at)
}

#[allow(clippy::cast_possible_truncation, reason = "two halves")]
fn unpacked(average: u64) -> (f32, u32) {
    (f32::from_bits((average >> 32) as u32), average as u32)
}

#[allow(clippy::cast_precision_loss, reason = "weeks to the second are close enough")]
fn decayed(average: u64, now: u32) -> f32 {
    let (average, at) = unpacked(average);
    average * (-(now.wrapping_sub(at) as f32) / DECAY_MILLIS).exp()
}

fn millis(latency: Duration) -> f32 {
    latency.as_secs_f32() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    async fn call(load: &Load, millis: u64, answered: Option<bool>) {
        load.begin();
        advance(Duration::from_millis(millis)).await;
        load.end(Duration::from_millis(millis), answered);
    }

    #[tokio::test(start_paused = true)]
    async fn peaks_count_at_once_and_fade() {
        let load = Load::default();
        call(&load, 5, Some(true)).await;
        assert!(load.cost() < UNKNOWN && load.cost() > 5.0, "{}", load.cost());
        call(&load, 500, Some(true)).await;
        assert!((load.cost() - 500.0).abs() < 1.0, "{}", load.cost());
        call(&load, 5, Some(true)).await;
        assert!(load.cost() > 450.0, "one good answer does not make up for it: {}", load.cost());
        for _ in 0..20_000 {
            call(&load, 5, Some(true)).await;
        }
        assert!((load.cost() - 5.0).abs() < 1.0, "{}", load.cost());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_multiply() {
        let load = Load::default();
        call(&load, 20, Some(true)).await;
        let idle = load.cost();
        load.begin();
        load.begin();
        assert!((load.cost() - 3.0 * idle).abs() < 0.1);
        load.end(Duration::ZERO, None);
        load.end(Duration::ZERO, None);
        assert!((load.cost() - idle).abs() < 0.1, "dropped at once tells nothing: {}", load.cost());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_calls_given_up_count_as_slow() {
        let (failing, hanging) = (Load::default(), Load::default());
        call(&failing, 1, Some(false)).await;
        assert!(failing.cost() >= 0.99 * FAILURE, "{}", failing.cost());
        call(&hanging, 3_000, None).await;
        assert!(hanging.cost() >= 2_999.0, "{}", hanging.cost());
        // Left alone they are forgiven.
        advance(Duration::from_secs(300)).await;
        assert!(failing.cost() <= LEAST && hanging.cost() <= LEAST);
    }
}
