//! When calls to an instance are held back because too many of them failed: a pure machine, without clock and locks.
//!
//! Written here and not taken from a crate: the breakers of failsafe, recloser and tower-resilience read the system's clock,
//! which paused time does not stop, and each stands alone, while at most half of a service's instances may be ejected.

mod circuit;
mod window;

use std::time::Duration;

use roundsman_protocol::{Invalid, time};

pub(crate) use circuit::{Before, Circuit, Counted, Standing, Turn};

/// When the circuit to one instance opens and for how long; set by
/// [`Builder::circuit_breaker`](crate::Builder::circuit_breaker).
///
/// An open circuit means that [`Resolver::pick`](crate::Resolver::pick) passes the instance over: it is ejected. After the
/// ejection one call at a time is let through to it (half-open), for ten seconds at most: when three of them were answered the
/// circuit closes, when one fails the next ejection is twice as long. At most half of a service's instances are ejected at a
/// time, and the servers are asked to visit each of them at once.
///
/// Besides the failures that the rules below count, calls by name (over HTTP, gRPC and the middleware) open a circuit by two
/// things. A single 503 with `Retry-After` does so for as long as it says, within the longest ejection. A call that waits five
/// times as long as is usual, half a second at least, counts as a failure from then on, until it is answered.
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

/// Nobody is ejected for longer, whatever the rules say and however long an instance asks for: no moment is beyond that.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Shares that grow for days are looked at once an hour.
const LONGEST_STEP: Duration = Duration::from_secs(3_600);

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

    /// Never opens, not for a `Retry-After` either: callers are on their own until the servers evict an instance.
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
        doubled.min(self.longest()).mul_f64(jitter)
    }

    /// How long an ejection may take.
    fn longest(&self) -> Duration {
        self.longest_ejection.min(LONGEST)
    }
}

#[cfg(test)]
mod tests;
