//! The circuit to one instance: closed, open, or half-open.

use std::time::Duration;

use tokio::time::Instant;

use super::{CircuitBreaker, window::Window};

/// So many calls in a row, one at a time, bring an instance back.
const ANSWERS: u32 = 3;

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

/// A failure that may turn out to be none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    at: Instant,
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
        let window = Window::new(now);
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
                self.window = Window::new(now);
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
        self.window.forget_a_call();
        self.failed(rules, jitter, now)
    }

    /// A call that counted as failed goes on, from this moment.
    pub(crate) fn counted(&self, now: Instant) -> Counted {
        Counted { at: now, answers: self.answers }
    }

    /// It was answered after all: it is no failure, and is told anew.
    pub(crate) fn take_back(&mut self, counted: Counted) {
        if self.answers == counted.answers {
            // No answer came since: it still counts in the row.
            self.failed_in_a_row = self.failed_in_a_row.saturating_sub(1);
        }
        self.window.take_back(counted.at);
    }

    /// The instance asks to be left alone for so long, and is, within the longest ejection. Whether it is passed over from now
    /// on: one that is ejected already may only stay so for longer.
    pub(crate) fn hold(&mut self, rules: &CircuitBreaker, time: Duration, now: Instant) -> bool {
        let until = now + time.min(rules.longest());
        let (longer, ejected) = match self.state {
            State::Closed { .. } => (rules.consecutive_failures < u32::MAX && until > now, false),
            State::Open { until: before, .. } => (until > before.max(now), now < before),
        };
        if longer {
            self.state = State::Open { until, answered: 0 };
        }
        longer && !ejected
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
