//! When calls to an instance are held back because too many of them failed: a pure machine, without clock and locks.
//!
//! Written here and not taken from a crate: the breakers of failsafe, recloser and tower-resilience read the system's clock,
//! which paused time does not stop, and each stands alone, while at most half of a service's instances may be ejected.

use std::time::Duration;

use roundsman_protocol::{Invalid, time};
use tokio::time::Instant;

/// When the circuit to one instance opens and for how long; set by
/// [`Builder::circuit_breaker`](crate::Builder::circuit_breaker).
///
/// An open circuit means that [`Resolver::pick`](crate::Resolver::pick) passes the instance over: it is ejected. After the
/// ejection one call at a time is let through to it (half-open): when three of them were answered the circuit closes, when
/// one fails the next ejection is twice as long. At most half of a service's instances are ejected at a time, and
/// the servers are asked to visit each of them at once.
///
/// An instance that is back, or new among others, has a tenth of its share of the calls at first, and all of it when the
/// [slow start](CircuitBreaker::slow_start) is over.
///
/// Only calls whose outcome is told count and bring an instance back: those of `Discovery::http`, and each
/// [`Pick`](crate::Pick) that ends with `succeeded`, `failed` or `failed_by`. Answers to calls that had to go to this instance and
/// no other tell nothing of what it does with the rest: they neither close the circuit nor keep it from opening.
///
/// ```
/// use roundsman::CircuitBreaker;
/// use std::time::Duration;
///
/// let strict = CircuitBreaker::default().consecutive_failures(2).ejection(Duration::from_secs(5), Duration::from_secs(300));
/// let builder = roundsman::Discovery::builder().circuit_breaker(strict);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct CircuitBreaker {
    consecutive_failures: u32,
    ratio: f64,
    ratio_calls: u32,
    window: Duration,
    first_ejection: Duration,
    longest_ejection: Duration,
    slow_start: Duration,
}

/// So many calls in a row, one at a time, bring an instance back.
const ANSWERS: u32 = 3;

/// Shares that grow for days are looked at once an hour.
const LONGEST_STEP: Duration = Duration::from_secs(3_600);

/// What part of its share an instance begins with.
const FIRST_SHARE: f64 = 0.1;

/// The circuit to one instance.
#[derive(Clone, Debug)]
pub(crate) struct Circuit {
    state: State,
    failed_in_a_row: u32,
    window: Window,
    /// Ejections since it was last well for a while.
    ejections: u32,
    /// Counts answers.
    answers: u32,
}

/// How things were before an answer, which may turn out to be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    failed_in_a_row: u32,
    answers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        since: Instant,
    },
    /// Ejected until then; half-open from then on, and answered so many calls since.
    Open {
        until: Instant,
        answered: u32,
    },
}

/// Whether calls may go to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Like to any other.
    Closed,
    /// One at a time, to see whether it is back. It was ejected until then.
    HalfOpen(Instant),
    /// Not before this moment.
    Open(Instant),
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ejected for so long, after this many failures in a row.
    Opened { ejection: Duration, failed_in_a_row: u32 },
    /// Back.
    Closed,
}

/// Calls and failures of the last while, in two halves of which the older one is forgotten as a whole.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    now: Counts,
    before: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u32,
    failures: u32,
}

// === impl CircuitBreaker ===

impl Default for CircuitBreaker {
    /// Opens after 5 failures in a row, or when half of at least 20 calls within 10 s failed; ejects for 1 s at first
    /// and for 60 s at most. An instance has its full share after 10 s.
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            ratio: 0.5,
            ratio_calls: 20,
            window: Duration::from_secs(10),
            first_ejection: Duration::from_secs(1),
            longest_ejection: Duration::from_secs(60),
            slow_start: Duration::from_secs(10),
        }
    }
}

impl CircuitBreaker {
    /// Opens after so many failures in a row.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Opens when this share (0 to 1) of the calls within `window` failed, if there were at least `calls`.
    pub fn failure_ratio(mut self, ratio: f64, calls: u32, window: Duration) -> Self {
        (self.ratio, self.ratio_calls, self.window) = (ratio, calls, window);
        self
    }

    /// How long the first ejection takes, and the longest. Each doubles the one before, give or take a fifth, until
    /// the instance was well for as long as the longest.
    pub fn ejection(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_ejection, self.longest_ejection) = (first, longest);
        self
    }

    /// How long it takes until an instance that is back, or new among others, has its full share of the calls. Zero: it has
    /// that at once.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// How often shares that grow are looked at.
    pub(crate) fn step(&self) -> Duration {
        (self.slow_start / 10).min(LONGEST_STEP)
    }

    /// Never opens: callers are on their own until the servers evict an instance.
    pub fn never() -> Self {
        Self { consecutive_failures: u32::MAX, ratio_calls: u32::MAX, ..Self::default() }
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let invalid = |rule: String| Err(Invalid::new("circuit_breaker", rule));
        if self.consecutive_failures == 0 || self.ratio_calls == 0 {
            return invalid("must allow at least one failure".to_owned());
        }
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            return invalid(format!("its failure ratio must be above 0 and at most 1, got {}", self.ratio));
        }
        if self.window.is_zero() || self.first_ejection.is_zero() || self.first_ejection > self.longest_ejection {
            let [window, first, longest] = [self.window, self.first_ejection, self.longest_ejection].map(time::display);
            return invalid(format!(
                "needs a window and a first ejection no longer than the longest, got {window}, {first}, {longest}"
            ));
        }
        Ok(())
    }

    /// The length of the `nth` ejection in a row, the first being 0.
    fn nth_ejection(&self, nth: u32, jitter: f64) -> Duration {
        let doubled = self.first_ejection.saturating_mul(1_u32.checked_shl(nth).unwrap_or(u32::MAX));
        doubled.min(self.longest_ejection).mul_f64(jitter)
    }
}

// === impl Standing ===

impl Standing {
    /// The end of an ejection that is not over yet.
    pub(crate) fn ejected_until(self) -> Option<Instant> {
        match self {
            Self::Open(until) => Some(until),
            Self::Closed | Self::HalfOpen(_) => None,
        }
    }
}

// === impl Circuit ===

impl Circuit {
    pub(crate) fn new(now: Instant) -> Self {
        let window = Window { since: now, now: Counts::default(), before: Counts::default() };
        Self { state: State::Closed { since: now }, failed_in_a_row: 0, window, ejections: 0, answers: 0 }
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::Open { until, .. } if now < until => Standing::Open(until),
            State::Open { until, .. } => Standing::HalfOpen(until),
        }
    }

    /// What part of its calls it has by now, from a tenth to 1.
    pub(crate) fn share(&self, rules: &CircuitBreaker, now: Instant) -> f64 {
        match self.state {
            State::Closed { since } if !rules.slow_start.is_zero() => {
                let age = now.saturating_duration_since(since).as_secs_f64();
                (age / rules.slow_start.as_secs_f64()).clamp(FIRST_SHARE, 1.0)
            }
            _ => 1.0,
        }
    }

    /// How things are, for [`Circuit::rejected`].
    pub(crate) fn before(&self) -> Before {
        Before { failed_in_a_row: self.failed_in_a_row, answers: self.answers }
    }

    /// A call was answered that began after the circuit last opened. While it is open that changes nothing.
    pub(crate) fn succeeded(&mut self, rules: &CircuitBreaker, now: Instant) -> Option<Turn> {
        match &mut self.state {
            State::Closed { .. } => {
                self.window.count(rules.window, false, now);
            }
            State::Open { until, .. } if now < *until => return None,
            State::Open { answered, .. } => {
                *answered += 1;
                if *answered < ANSWERS {
                    return None;
                }
                self.state = State::Closed { since: now };
                self.window = Window { since: now, now: Counts::default(), before: Counts::default() };
                self.answered();
                return Some(Turn::Closed);
            }
        }
        self.answered();
        None
    }

    fn answered(&mut self) {
        self.failed_in_a_row = 0;
        self.answers = self.answers.wrapping_add(1);
    }

    /// An answer that was counted as one is of no use to its caller: it was a failure. `before` is how things were before it.
    pub(crate) fn rejected(
        &mut self,
        rules: &CircuitBreaker,
        before: Before,
        jitter: f64,
        now: Instant,
    ) -> Option<Turn> {
        if self.answers == before.answers.wrapping_add(1) {
            // No other answer came since: the row goes on.
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(before.failed_in_a_row);
        }
        self.window.now.calls = self.window.now.calls.saturating_sub(1);
        self.failed(rules, jitter, now)
    }

    /// A call that counted as failed goes on, and was answered after all: it is no failure, and is told anew.
    pub(crate) fn take_back(&mut self) {
        self.window.take_back();
    }

    /// The instance asks to be left alone for so long, and is, within the longest ejection. Whether that changes anything.
    pub(crate) fn hold(&mut self, rules: &CircuitBreaker, time: Duration, now: Instant) -> bool {
        let until = now + time.min(rules.longest_ejection);
        let longer = match self.state {
            State::Closed { .. } => rules.consecutive_failures < u32::MAX && until > now,
            State::Open { until: before, .. } => until > before,
        };
        if longer {
            self.state = State::Open { until, answered: 0 };
        }
        longer
    }

    /// A call failed that began after the circuit last opened. `jitter` is drawn from around 1.
    pub(crate) fn failed(&mut self, rules: &CircuitBreaker, jitter: f64, now: Instant) -> Option<Turn> {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        match self.state {
            State::Closed { since } => {
                let recent = self.window.count(rules.window, true, now);
                let in_a_row = self.failed_in_a_row >= rules.consecutive_failures;
                if !in_a_row && !recent.exceeds(rules) {
                    return None;
                }
                if now.saturating_duration_since(since) >= rules.longest_ejection {
                    self.ejections = 0;
                }
            }
            // Called although it is ejected, because too many others are as well: that changes nothing.
            State::Open { until, .. } if now < until => return None,
            State::Open { .. } => {}
        }
        let ejection = rules.nth_ejection(self.ejections, jitter);
        self.ejections = self.ejections.saturating_add(1);
        self.state = State::Open { until: now + ejection, answered: 0 };
        Some(Turn::Opened { ejection, failed_in_a_row: self.failed_in_a_row })
    }
}

// === impl Window ===

impl Window {
    /// Counts a call, and tells what the window holds with it.
    fn count(&mut self, length: Duration, failed: bool, now: Instant) -> Counts {
        let half = length / 2;
        let age = now.saturating_duration_since(self.since);
        if age >= half {
            self.before = if age < length { self.now } else { Counts::default() };
            self.now = Counts::default();
            self.since = now;
        }
        self.now.calls = self.now.calls.saturating_add(1);
        self.now.failures = self.now.failures.saturating_add(u32::from(failed));
        Counts {
            calls: self.now.calls.saturating_add(self.before.calls),
            failures: self.now.failures.saturating_add(self.before.failures),
        }
    }
}

impl Window {
    /// Forgets a call that failed.
    fn take_back(&mut self) {
        let counts = if self.now.failures > 0 { &mut self.now } else { &mut self.before };
        counts.failures = counts.failures.saturating_sub(1);
        counts.calls = counts.calls.saturating_sub(1);
    }
}

// === impl Counts ===

impl Counts {
    fn exceeds(self, rules: &CircuitBreaker) -> bool {
        self.calls >= rules.ratio_calls && f64::from(self.failures) >= rules.ratio * f64::from(self.calls)
    }
}

#[cfg(test)]
mod tests;
