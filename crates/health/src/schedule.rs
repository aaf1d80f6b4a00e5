//! When rounds come by: every instance has its place in the interval, so that rounds have no bursts.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use roundsman_registry::Key;
use tokio::time::Instant;

/// Places are this far apart where the interval is long: instances that share one cost one wake-up of a thread
/// together, which halves the price of a visit on an idle machine.
const GRID: Duration = Duration::from_millis(10);
/// The least number of places in an interval.
const PLACES: u32 = 100;
/// How many stored instances are visited per second when a server starts.
const START_RATE: f64 = 5_000.0;
/// No stored instance waits longer for its first visit, however many there are.
const LONGEST_START: Duration = Duration::from_secs(30);
/// Hurried visits of one instance come this far apart in the long run.
const HURRY: Duration = Duration::from_millis(200);
/// This many hurried visits may come at once after a quiet time.
const HURRY_BURST: u32 = 2;

/// A number between 0 and 1 that belongs to an instance, the same on every server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(f64);

/// Says how soon an instance may be visited out of turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// When everything that was granted so far is paid for.
    paid: Instant,
}

// === impl Place ===

impl Place {
    pub(crate) fn of(key: &Key) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        #[allow(clippy::cast_precision_loss, reason = "a fraction; the last bits do not matter")]
        Self((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The time from `now` to the next round: more than zero, at most `interval`. Rounds are counted from `epoch`.
    pub(crate) fn until_round(self, epoch: Instant, interval: Duration, now: Instant) -> Duration {
        let grid = GRID.min(interval / PLACES).max(Duration::from_millis(1));
        let interval = interval.max(grid);
        let place = interval.mul_f64(self.0).as_nanos() / grid.as_nanos() * grid.as_nanos();
        let position = now.saturating_duration_since(epoch).as_nanos() % interval.as_nanos();
        let ahead = (place + interval.as_nanos() - position - 1) % interval.as_nanos() + 1;
        u64::try_from(ahead).map_or(interval, Duration::from_nanos).max(Duration::from_micros(1)).min(interval)
    }

    /// The time until the first visit of a stored instance, one of `count`, when a server starts: less than an interval.
    pub(crate) fn at_start(self, count: usize, interval: Duration) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "a count of instances is far below 2^52")]
        let spread = Duration::from_secs_f64((count as f64 / START_RATE).min(LONGEST_START.as_secs_f64()));
        spread.min(interval).mul_f64(self.0)
    }
}

// === impl Allowance ===

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    /// When the next hurried visit may be made; `now` when at once.
    pub(crate) fn earliest(&self, now: Instant) -> Instant {
        let burst = HURRY * (HURRY_BURST - 1);
        self.paid.checked_sub(burst).map_or(now, |at| at.max(now))
    }

    /// Books a hurried visit that is made `now`.
    pub(crate) fn book(&mut self, now: Instant) {
        self.paid = self.paid.max(now) + HURRY;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: usize) -> Key {
        Key { namespace: "default".parse().unwrap(), id: format!("product-{n}").parse().unwrap() }
    }

    #[test]
    fn a_thousand_instances_spread_over_the_interval() {
        let epoch = Instant::now();
        let interval = Duration::from_secs(5);
        let mut tenths = [0_u32; 10];
        for n in 0..1_000 {
            let delay = Place::of(&key(n)).until_round(epoch, interval, epoch);
            tenths[usize::try_from((delay.as_millis() - 1) / 500).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|n| (60..=140).contains(n)), "{tenths:?}");
    }

    #[test]
    fn hurried_visits_settle_at_five_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut now = start;
        let mut visits = 0;
        while now < start + Duration::from_secs(10) {
            now = allowance.earliest(now);
            allowance.book(now);
            visits += 1;
        }
        assert!((50..=53).contains(&visits), "{visits}");
        let quiet = now + Duration::from_secs(1);
        assert_eq!(allowance.earliest(quiet), quiet);
    }

    proptest! {
        #[test]
        fn rounds_keep_their_place(n in 0_usize..10_000, interval in 1_u64..3_600_000, passed in 0_u64..10_000_000_000) {
            let epoch = Instant::now();
            let interval = Duration::from_millis(interval);
            let now = epoch + Duration::from_micros(passed);
            let place = Place::of(&key(n));
            let delay = place.until_round(epoch, interval, now);
            prop_assert!(delay > Duration::ZERO && delay <= interval);
            // A visit that is made on time is followed by one exactly an interval later.
            let then = place.until_round(epoch, interval, now + delay);
            prop_assert!(interval.abs_diff(then) <= Duration::from_micros(1), "{then:?} instead of {interval:?}");
            // And one that comes late does not move the rounds.
            if interval > Duration::from_millis(2) {
                let late = place.until_round(epoch, interval, now + delay + Duration::from_millis(1));
                prop_assert!((interval - Duration::from_millis(1)).abs_diff(late) <= Duration::from_micros(2));
            }
        }

        #[test]
        fn a_start_is_spread_within_bounds(n in 0_usize..10_000, count in 0_usize..1_000_000, interval in 1_u64..100_000) {
            let interval = Duration::from_millis(interval);
            prop_assert!(Place::of(&key(n)).at_start(count, interval) <= LONGEST_START.min(interval));
            prop_assert!(Place::of(&key(n)).at_start(10, interval) <= Duration::from_millis(2));
        }
    }
}
