//! Our own lag: when this process was stopped, starved of CPU time or kept busy, it heard nothing, and that proves nothing.
//!
//! A heartbeat that comes late tells. What is asked is answered from the beats that were late, and from the one that is late
//! now: after a stop the timers of visits may go off before that of the heartbeat.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Timestamp, status::LagStatus};
use tokio::time::{Instant, sleep_until};

/// A beat that is less late than this is on time.
const FINEST: Duration = Duration::from_millis(10);
/// Between two beats.
const PERIODS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// Late beats that follow each other within this time are remembered as one.
const STRETCH: Duration = Duration::from_secs(1);
/// So many are remembered.
const MOST: usize = 600;
/// What counts as recent.
const RECENT: Duration = Duration::from_secs(60);
/// The log says no more often than this that we lag.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How late this process was, and when.
#[derive(Debug)]
pub(crate) struct Lag {
    beats: Mutex<Beats>,
    voided: AtomicU64,
}

/// The beats that were late. Pure.
#[derive(Debug)]
struct Beats {
    period: Duration,
    /// A lag that is longer than this is a stop: all that was to be heard meanwhile may still be on its way.
    stop: Duration,
    due: Instant,
    late: VecDeque<Late>,
    worst: Duration,
    /// The last stop.
    stopped: Option<Late>,
    warned: Option<Instant>,
}

/// A beat that was late, or several in a short time.
#[derive(Clone, Copy, Debug)]
struct Late {
    from: Instant,
    to: Instant,
    /// How late they were together.
    total: Duration,
    longest: Duration,
}

// === impl Lag ===

impl Lag {
    /// `timeout`: how long a visit may take; a quarter of it is a lag that matters.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { beats: Mutex::new(Beats::new(timeout, Instant::now())), voided: AtomicU64::new(0) }
    }

    /// The heartbeat. Never ends.
    pub(crate) async fn beat(self: Arc<Self>) {
        loop {
            let due = self.beats().due;
            sleep_until(due).await;
            let stopped = self.beats().beat(Instant::now());
            if let Some(late) = stopped {
                let late = roundsman_protocol::time::display(Duration::from_millis(millis(late)));
                tracing::warn!(%late, "this server was stopped or starved of CPU time: what it did not hear meanwhile counts for nothing");
            }
        }
    }

    /// How late this process was between `from` and `now`, all in all.
    pub(crate) fn since(&self, from: Instant, now: Instant) -> Duration {
        self.beats().since(from, now)
    }

    /// When the last stop ended of which more than a quarter of the timeout lies after `since`; `now` when it is just ending.
    pub(crate) fn thaw(&self, since: Instant, now: Instant) -> Option<Instant> {
        self.beats().thaw(since, now)
    }

    /// Counts something that was to happen and does not, because of a lag.
    pub(crate) fn void(&self) {
        self.voided.fetch_add(1, Ordering::Relaxed);
    }

    /// `wall`: what time it is `now`.
    pub(crate) fn status(&self, now: Instant, wall: Timestamp) -> LagStatus {
        let beats = self.beats();
        let before = |at: Instant| millis(now.saturating_duration_since(at));
        LagStatus {
            recent: beats.recent(now),
            worst: beats.worst,
            last: beats.stopped.map(|stop| Timestamp::from_millis(wall.as_millis().saturating_sub(before(stop.to)))),
            voided: self.voided.load(Ordering::Relaxed),
        }
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// === impl Beats ===

impl Beats {
    fn new(timeout: Duration, now: Instant) -> Self {
        let period = (timeout / 16).clamp(PERIODS.0, PERIODS.1);
        Self {
            period,
            stop: (timeout / 4).max(FINEST),
            due: now + period,
            late: VecDeque::new(),
            worst: Duration::ZERO,
            stopped: None,
            warned: None,
        }
    }

    /// A beat. How late it is, if that is worth a warning.
    fn beat(&mut self, now: Instant) -> Option<Duration> {
        let late = self.late_now(now);
        self.due = now + self.period;
        let late = late?;
        self.worst = self.worst.max(late.total);
        let stopped = late.total > self.stop;
        match self.late.back_mut() {
            Some(last) if !stopped && last.longest <= self.stop && now < last.from + STRETCH => {
                last.to = now;
                last.total += late.total;
                last.longest = last.longest.max(late.longest);
            }
            _ => self.late.push_back(late),
        }
        if self.late.len() > MOST {
            self.late.pop_front();
        }
        if !stopped {
            return None;
        }
        self.stopped = Some(late);
        let warn = self.warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY);
        if warn {
            self.warned = Some(now);
        }
        warn.then_some(late.total)
    }

    /// The beat that is late at this moment.
    fn late_now(&self, now: Instant) -> Option<Late> {
        let total = now.saturating_duration_since(self.due);
        (total >= FINEST).then_some(Late { from: self.due, to: now, total, longest: total })
    }

    fn since(&self, from: Instant, now: Instant) -> Duration {
        let known = self.late.iter().rev().take_while(|late| late.to > from).copied();
        let within = |late: Late| late.total.min(late.to.saturating_duration_since(from.max(late.from)));
        known.chain(self.late_now(now)).map(within).sum()
    }

    /// Who asks before the beat of a stop and once more after it must not take it for two: the beat comes a little later.
    fn thaw(&self, since: Instant, now: Instant) -> Option<Instant> {
        let stops = self.late_now(now).into_iter().chain(self.stopped);
        let mut after = stops.filter(|late| late.to.saturating_duration_since(since.max(late.from)) > self.stop);
        after.next().map(|late| late.to)
    }

    fn recent(&self, now: Instant) -> Duration {
        let recent = self.late.iter().rev().take_while(|late| now.saturating_duration_since(late.to) < RECENT).copied();
        recent.chain(self.late_now(now)).map(|late| late.longest).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_beat_on_time_is_no_lag() {
        let start = Instant::now();
        let mut beats = Beats::new(TIMEOUT, start);
        let mut now = start;
        for _ in 0..10_000 {
            now = beats.due + ms(2);
            assert_eq!(beats.beat(now), None);
        }
        assert_eq!(
            (beats.since(start, now), beats.recent(now), beats.thaw(start, now)),
            (Duration::ZERO, Duration::ZERO, None)
        );
    }

    #[test]
    fn a_stop_is_known_before_and_after_its_beat() {
        let start = Instant::now();
        let mut beats = Beats::new(TIMEOUT, start);
        let thaw = beats.due + ms(3_000);
        for _ in 0..2 {
            assert_eq!(beats.since(start, thaw), ms(3_000));
            assert_eq!(beats.since(start + ms(1_050), thaw), ms(2_000), "as far as it lies in that time");
            assert_eq!(beats.since(thaw, thaw), Duration::ZERO);
            assert_eq!(beats.thaw(start, thaw), Some(thaw));
            assert_eq!(beats.recent(thaw), ms(3_000));
            let warned = beats.beat(thaw);
            assert!(warned == Some(ms(3_000)) || beats.warned.is_some());
        }
        assert_eq!(beats.worst, ms(3_000));
        let later = thaw + RECENT;
        beats.due = later;
        assert_eq!((beats.recent(later), beats.thaw(start, later)), (Duration::ZERO, Some(thaw)));
    }

    #[test]
    fn a_stop_that_was_forgiven_before_its_beat_is_not_forgiven_again() {
        let start = Instant::now();
        let mut beats = Beats::new(TIMEOUT, start);
        let forgiven = beats.thaw(start, beats.due + ms(3_000)).unwrap();
        beats.beat(forgiven + ms(5));
        assert_eq!(beats.thaw(forgiven, forgiven + ms(10)), None);
        assert_eq!(beats.thaw(start, forgiven + ms(10)), Some(forgiven + ms(5)), "whoever was not asked about yet");
    }

    #[test]
    fn many_short_lags_add_up_and_are_remembered_in_little_room() {
        let start = Instant::now();
        let mut beats = Beats::new(TIMEOUT, start);
        let mut now = start;
        for _ in 0..100_000 {
            now = beats.due + ms(100);
            beats.beat(now);
        }
        assert!(beats.late.len() <= MOST);
        assert_eq!(beats.thaw(start, now), None, "each of them is short");
        let second = beats.since(now - TIMEOUT, now);
        assert!(second > TIMEOUT / 2, "{second:?}");
        assert!(beats.since(start, now) <= now - start);
    }

    #[tokio::test(start_paused = true)]
    async fn the_heartbeat_tells_a_stop_from_time_that_passes() {
        let lag = Arc::new(Lag::new(TIMEOUT));
        let start = Instant::now();
        let heart = Arc::clone(&lag).beat();
        let mut heart = std::pin::pin!(heart);
        tokio::select! {
            () = &mut heart => {}
            () = sleep_until(start + ms(60_000)) => {}
        }
        assert_eq!(lag.since(start, Instant::now()), Duration::ZERO);
        tokio::time::advance(ms(3_000)).await;
        tokio::select! {
            () = &mut heart => {}
            () = sleep_until(Instant::now() + ms(100)) => {}
        }
        lag.void();
        let status = lag.status(Instant::now(), Timestamp::from_millis(1_000_000));
        assert!(status.worst > ms(2_900) && status.recent == status.worst && status.voided == 1, "{status:?}");
        let last = status.last.unwrap().as_millis();
        assert!((999_890..=999_900).contains(&last), "{last}");
    }
}
