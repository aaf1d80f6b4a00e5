//! Growing, jittered pauses between tries, so that many clients do not return in step.

use std::time::Duration;

/// Pauses that double from `first` to `most`, each drawn at random from the whole range below.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next pause: between a tenth and the whole of a limit that doubles each time.
    pub(crate) fn next(&mut self) -> Duration {
        let limit = self.next;
        self.next = limit.saturating_mul(2).min(self.most);
        limit.mul_f64(0.1 + 0.9 * fastrand::f64())
    }

    /// Starts over: what was tried has worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `duration`, up to a fifth shorter or longer.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_are_never_zero() {
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        let mut limit = first;
        for _ in 0..20 {
            let pause = backoff.next();
            assert!(pause >= limit / 10 && pause <= limit, "{pause:?} of {limit:?}");
            limit = (limit * 2).min(most);
        }
        assert_eq!(limit, most);
        backoff.reset();
        assert!(backoff.next() <= first);
    }

    #[test]
    fn pauses_are_spread() {
        let pauses: std::collections::BTreeSet<_> =
            (0..100).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next()).collect();
        assert!(pauses.len() > 90);
        let (first, last) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*last - *first > Duration::from_millis(500), "{first:?} to {last:?}");
    }
}
