//! Whether an instance's closed connections mean anything.
//!
//! A connection that closes between visits is worth a visit at once: the instance may have died. Some servers close
//! idle connections by habit, though, and must not be visited twice as often for it.

use std::time::Duration;

use tokio::time::Instant;

/// So many closes that turned out harmless, and the instance is only polled.
const HARMLESS: u8 = 2;
/// After this it gets another chance, because a restarted proxy on the way is not a habit. One, not two.
const FORGIVEN: Duration = Duration::from_secs(600);

/// What an instance does with idle connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habit {
    harmless: u8,
    last: Option<Instant>,
}

// === impl Habit ===

impl Habit {
    /// Whether a connection to it is worth keeping.
    pub(crate) fn keeps(&self, now: Instant) -> bool {
        let forgiven = self.last.is_some_and(|last| now.saturating_duration_since(last) >= FORGIVEN);
        self.harmless < HARMLESS || forgiven
    }

    /// It closed its connection and was well all the same.
    pub(crate) fn closed_harmlessly(&mut self, now: Instant) {
        self.harmless = self.harmless.saturating_add(1);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_harmless_closes_make_a_habit_which_is_tried_again_later() {
        let now = Instant::now();
        let mut habit = Habit::default();
        habit.closed_harmlessly(now);
        assert!(habit.keeps(now));
        habit.closed_harmlessly(now);
        assert!(!habit.keeps(now) && !habit.keeps(now + FORGIVEN / 2));
        let later = now + FORGIVEN;
        assert!(habit.keeps(later));
        habit.closed_harmlessly(later);
        assert!(!habit.keeps(later));
    }
}
