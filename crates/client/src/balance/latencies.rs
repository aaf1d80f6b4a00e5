//! How long an instance's answers take: what all but one in a hundred of them stay below.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Four to each doubling, from a millisecond to more than a minute.
const BUCKETS: usize = 68;
/// What was answered in this time and, at first, in the one before it is what counts.
const WINDOW: Duration = Duration::from_secs(30);

/// The latencies of the last while. Takes no memory before the first.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    recent: Mutex<Option<Box<Recent>>>,
}

#[derive(Debug)]
struct Recent {
    since: Instant,
    now: [u32; BUCKETS],
    before: [u32; BUCKETS],
}

// === impl Latencies ===

impl Latencies {
    /// An answer took so long.
    pub(crate) fn note(&self, took: Duration) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.get_or_insert_with(|| Box::new(Recent::new(Instant::now())));
        recent.turn(Instant::now());
        if let Some(count) = recent.now.get_mut(bucket(took)) {
            *count = count.saturating_add(1);
        }
    }

    /// The 99th percentile, rounded up by at most a fifth, if there were at least so many answers.
    pub(crate) fn p99(&self, at_least: u32) -> Option<Duration> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.as_mut()?;
        recent.turn(Instant::now());
        let counts = || recent.now.iter().zip(&recent.before).map(|(now, before)| u64::from(*now) + u64::from(*before));
        let all: u64 = counts().sum();
        if all < u64::from(at_least.max(1)) {
            return None;
        }
        let mut left = (all * 99).div_ceil(100);
        let nth = counts().position(|count| {
            left = left.saturating_sub(count);
            left == 0
        });
        nth.map(longest)
    }
}

// === impl Recent ===

impl Recent {
    fn new(since: Instant) -> Self {
        Self { since, now: [0; BUCKETS], before: [0; BUCKETS] }
    }

    /// Forgets what is too long ago.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= WINDOW {
            let last = if age < 2 * WINDOW { self.now } else { [0; BUCKETS] };
            *self = Self { before: last, ..Self::new(now) };
        }
    }
}

/// The first bucket that is no shorter.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
fn bucket(took: Duration) -> usize {
    let millis = (took.as_secs_f64() * 1_000.0).max(1.0);
    ((millis.log2() * 4.0).ceil() as usize).min(BUCKETS - 1)
}

/// The longest of a bucket.
#[allow(clippy::cast_precision_loss, reason = "a small number")]
fn longest(nth: usize) -> Duration {
    Duration::from_secs_f64((nth as f64 / 4.0).exp2() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_in_a_hundred_is_left_out_and_no_more() {
        let latencies = Latencies::default();
        assert_eq!(latencies.p99(0), None);
        for n in 0..100 {
            latencies.note(if n == 50 { SECOND } else { Duration::from_millis(20) });
        }
        let p99 = latencies.p99(100).unwrap();
        assert!(p99 >= Duration::from_millis(20) && p99 < Duration::from_millis(24), "{p99:?}");
        assert_eq!(latencies.p99(101), None, "too few to tell");
        latencies.note(SECOND);
        assert!(latencies.p99(1).unwrap() >= SECOND && latencies.p99(1).unwrap() < SECOND.mul_f64(1.2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_is_forgotten() {
        let latencies = Latencies::default();
        latencies.note(4 * SECOND);
        advance(WINDOW).await;
        latencies.note(SECOND / 100);
        assert!(latencies.p99(2).unwrap() >= 4 * SECOND);
        advance(WINDOW).await;
        latencies.note(SECOND / 100);
        assert!(latencies.p99(2).unwrap() < SECOND);
    }

    #[test]
    fn the_longest_and_the_shortest_have_their_place() {
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(100), Duration::MAX] {
            assert!(bucket(took) < BUCKETS, "{took:?}");
        }
        assert!(longest(BUCKETS - 1) > 60 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_is_forgotten_before_the_next_answer() {
        let latencies = Latencies::default();
        for _ in 0..20 {
            latencies.note(20 * SECOND);
        }
        advance(WINDOW).await;
        assert!(latencies.p99(20).is_some(), "still the window before");
        advance(WINDOW).await;
        assert_eq!(latencies.p99(1), None);
    }
}
