//! How busy an instance is with our calls, and how fast it answered them.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// After so long without a call a latency counts a third of what it did.
const DECAY_MILLIS: f32 = 10_000.0;
/// What an instance is thought to take, in milliseconds, before it has answered anything.
const UNKNOWN: f32 = 10.0;
/// No latency counts less, in milliseconds: among fast instances it is their turn that decides, not the noise.
const LEAST: f32 = 5.0;
/// One call that took so long, in milliseconds, counts at once; shorter ones count by their average.
const PEAK: f32 = 250.0;
/// What part of the way to the latest latency the average goes.
const STEP: f32 = 0.125;
/// A failure counts as at least so slow, in milliseconds.
const FAILURE: f32 = 1_000.0;

/// What is known of one instance; updated without locks.
#[derive(Debug)]
pub(crate) struct Load {
    under_way: AtomicU32,
    /// When the calls under way began, in milliseconds since `origin`, added up.
    began: AtomicU64,
    average: Fading,
    /// The latest latency that was far too long.
    peak: Fading,
    origin: Instant,
}

/// A latency in milliseconds (an `f32`, upper half) and when it was that (lower half, milliseconds since `origin`). That
/// begins anew after 49 days, which only makes a forgotten value count once more.
#[derive(Debug)]
struct Fading(AtomicU64);

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        Self {
            under_way: AtomicU32::new(0),
            began: AtomicU64::new(0),
            average: Fading::new(UNKNOWN),
            peak: Fading::new(0.0),
            origin: Instant::now(),
        }
    }
}

impl Load {
    /// How long a call would take about now; only good for comparisons. An instance of twice the average weight, which is
    /// a `share` of 2, is as busy with twice the calls.
    pub(crate) fn cost(&self, share: f32) -> f32 {
        let under_way = self.under_way.load(Ordering::Relaxed);
        let busy = f32::from(u16::try_from(under_way).unwrap_or(u16::MAX)) / share;
        self.latency(under_way).max(LEAST) * (busy + 1.0)
    }

    /// A call begins. Its end needs to know when.
    pub(crate) fn begin(&self) -> u64 {
        let began = self.millis();
        self.began.fetch_add(began, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        began
    }

    /// A call that `began` then is over; `answered` says how it went, if that is known.
    pub(crate) fn end(&self, began: u64, took: Duration, answered: Option<bool>) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.began.fetch_sub(began, Ordering::Relaxed);
        let latency = millis(took);
        match answered {
            Some(true) => self.note(latency),
            Some(false) => self.note(latency.max(FAILURE)),
            // Given up without a word. If that took long, it tells something; if not, there may have been no call at all.
            None if latency > self.latency(0) => self.note(latency),
            None => {}
        }
    }

    /// The latency so far, or what those under way have been waiting for, on average: an instance that hangs is seen to
    /// before its first call ends.
    fn latency(&self, under_way: u32) -> f32 {
        let (now, known) = (self.millis(), self.now());
        let known = self.average.at(known).max(self.peak.at(known));
        // Two counters that are not read in one: what is off by a call is off for a moment.
        let waiting = self.began.load(Ordering::Relaxed).checked_div(u64::from(under_way));
        known.max(waiting.map_or(0.0, |began| of(now.saturating_sub(began))))
    }

    fn note(&self, latency: f32) {
        let now = self.now();
        self.average.update(now, |before| before + (latency - before) * STEP);
        if latency >= PEAK {
            self.peak.update(now, |before| before.max(latency));
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::cast_possible_truncation, reason = "wraps after 49 days, see `Fading`")]
    fn now(&self) -> u32 {
        self.millis() as u32
    }
}

// === impl Fading ===

impl Fading {
    fn new(latency: f32) -> Self {
        Self(AtomicU64::new(packed(latency, 0)))
    }

    fn at(&self, now: u32) -> f32 {
        decayed(self.0.load(Ordering::Relaxed), now)
    }

    fn update(&self, now: u32, change: impl Fn(f32) -> f32) {
        let changed = |packed_before| packed(change(decayed(packed_before, now)), now);
        // It never declines. `update` is younger than the oldest compiler that this crate promises.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(changed(before)));
    }
}

fn packed(latency: f32, at: u32) -> u64 {
    (u64::from(latency.to_bits()) << 32) | u64::from(at)
}

#[allow(clippy::cast_possible_truncation, reason = "two halves")]
fn unpacked(latency: u64) -> (f32, u32) {
    (f32::from_bits((latency >> 32) as u32), latency as u32)
}

#[allow(clippy::cast_precision_loss, reason = "weeks to the second are close enough")]
fn decayed(latency: u64, now: u32) -> f32 {
    let (latency, at) = unpacked(latency);
    // Another call may have ended after `now` was read: its latency is new, and not of 49 days ago.
    let age = Some(now.wrapping_sub(at)).filter(|age| *age < u32::MAX / 2).unwrap_or_default();
    latency * (-(age as f32) / DECAY_MILLIS).exp()
}

#[allow(clippy::cast_precision_loss, reason = "hours to the second are close enough")]
fn of(millis: u64) -> f32 {
    millis as f32
}

fn millis(latency: Duration) -> f32 {
    latency.as_secs_f32() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    async fn call(load: &Load, millis: u64, answered: Option<bool>) {
        let began = load.begin();
        advance(Duration::from_millis(millis)).await;
        load.end(began, Duration::from_millis(millis), answered);
    }

    fn cost(load: &Load) -> f32 {
        load.cost(1.0)
    }

    #[tokio::test(start_paused = true)]
    async fn peaks_count_at_once_and_fade() {
        let load = Load::default();
        call(&load, 5, Some(true)).await;
        assert!(cost(&load) < UNKNOWN && cost(&load) > 5.0, "{}", cost(&load));
        call(&load, 500, Some(true)).await;
        assert!((cost(&load) - 500.0).abs() < 1.0, "{}", cost(&load));
        call(&load, 5, Some(true)).await;
        assert!(cost(&load) > 450.0, "one good answer does not make up for it: {}", cost(&load));
        for _ in 0..20_000 {
            call(&load, 5, Some(true)).await;
        }
        assert!((cost(&load) - 5.0).abs() < 1.0, "{}", cost(&load));
    }

    #[tokio::test(start_paused = true)]
    async fn the_noise_of_fast_answers_makes_no_difference_and_slowness_does() {
        let load = Load::default();
        for millis in [1, 1, 40, 1, 1, 2, 30, 1, 1].repeat(20) {
            call(&load, millis, Some(true)).await;
            assert!(cost(&load) < 2.0 * UNKNOWN, "{}", cost(&load));
        }
        for _ in 0..8 {
            call(&load, 60, Some(true)).await;
        }
        assert!(cost(&load) > 30.0, "{}", cost(&load));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_multiply() {
        let load = Load::default();
        call(&load, 20, Some(true)).await;
        let idle = cost(&load);
        let (first, second) = (load.begin(), load.begin());
        assert!((cost(&load) - 3.0 * idle).abs() < 0.1);
        assert!((load.cost(2.0) - 2.0 * idle).abs() < 0.1, "for one of twice the weight they are half as much");
        load.end(first, Duration::ZERO, None);
        load.end(second, Duration::ZERO, None);
        assert!((cost(&load) - idle).abs() < 0.1, "dropped at once tells nothing: {}", cost(&load));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_counts_before_it_ends() {
        let load = Load::default();
        for _ in 0..100 {
            call(&load, 1, Some(true)).await;
        }
        let began = load.begin();
        advance(Duration::from_millis(300)).await;
        assert!(cost(&load) >= 600.0, "{}", cost(&load));
        load.end(began, Duration::from_millis(300), Some(true));
        assert!(cost(&load) <= 301.0, "{}", cost(&load));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_calls_given_up_count_as_slow() {
        let (failing, hanging) = (Load::default(), Load::default());
        call(&failing, 1, Some(false)).await;
        assert!(cost(&failing) >= 0.99 * FAILURE, "{}", cost(&failing));
        call(&hanging, 3_000, None).await;
        assert!(cost(&hanging) >= 2_999.0, "{}", cost(&hanging));
        // Left alone they are forgiven.
        advance(Duration::from_secs(300)).await;
        assert!(cost(&failing) <= LEAST && cost(&hanging) <= LEAST);
    }

    #[test]
    fn a_clock_that_was_read_before_another_call_ended_wipes_nothing_out() {
        let peak = Fading::new(0.0);
        peak.update(1_001, |_| 3_000.0);
        assert!(peak.at(1_000) > 2_900.0, "read: {}", peak.at(1_000));
        peak.update(1_000, |before| before.max(300.0));
        assert!(peak.at(1_002) > 2_900.0, "written: {}", peak.at(1_002));
        // Also where the clock has begun anew meanwhile.
        peak.update(1, |_| 3_000.0);
        assert!(peak.at(u32::MAX) > 2_900.0 && peak.at(100_000) < 1.0);
    }
}
