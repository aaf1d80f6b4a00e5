//! What became of the calls of the last while.

use std::time::Duration;

use tokio::time::Instant;

use super::CircuitBreaker;

/// Calls and failures of the last while, in two halves of which the older one is forgotten as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    since: Instant,
    before_since: Instant,
    now: Counts,
    before: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    calls: u32,
    failures: u32,
}

// === impl Window ===

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, before_since: now, now: Counts::default(), before: Counts::default() }
    }

    /// Counts a call, and tells what the window holds with it.
    pub(super) fn count(&mut self, length: Duration, failed: bool, now: Instant) -> Counts {
        let half = length / 2;
        let age = now.saturating_duration_since(self.since);
        if age >= half {
            (self.before, self.before_since) =
                if age < length { (self.now, self.since) } else { (Counts::default(), now) };
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

    /// A call that was just counted is told anew.
    pub(super) fn forget_a_call(&mut self) {
        self.now.calls = self.now.calls.saturating_sub(1);
    }

    /// Forgets a call that failed at this moment, unless it is forgotten already.
    pub(super) fn take_back(&mut self, at: Instant) {
        let counts = match at {
            at if at >= self.since => &mut self.now,
            at if at >= self.before_since => &mut self.before,
            _ => return,
        };
        counts.failures = counts.failures.saturating_sub(1);
        counts.calls = counts.calls.saturating_sub(1);
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn exceeds(self, rules: &CircuitBreaker) -> bool {
        self.calls >= rules.ratio_calls && f64::from(self.failures) >= rules.ratio * f64::from(self.calls)
    }
}
