//! Growing, jittered pauses between tries, so that many clients do not return in step.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest pause between two rounds through all servers.
const RECONNECTS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Longest pause while the servers have not been away for long: who restarts within seconds has all its clients back a
/// second later, spread over that second.
const RESTART: Duration = Duration::from_secs(1);
/// After that, pauses grow to this part of the time that the servers have been away.
const SHARE: u32 = 8;

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
        self.next_within(self.most)
    }

    /// The same, with a limit that is no longer than `most` this time.
    fn next_within(&mut self, most: Duration) -> Duration {
        let limit = self.next.min(most);
        self.next = limit.saturating_mul(2).min(self.most);
        limit.mul_f64(0.1 + 0.9 * fastrand::f64())
    }

    /// Starts over: what was tried has worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The pauses between tries to reach a server.
#[derive(Clone, Debug)]
pub(crate) struct Reconnects {
    backoff: Backoff,
    away_since: Instant,
}

// === impl Reconnects ===

impl Reconnects {
    pub(crate) fn new(now: Instant) -> Self {
        Self { backoff: Backoff::new(RECONNECTS.0, RECONNECTS.1), away_since: now }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        let away = now.saturating_duration_since(self.away_since);
        self.backoff.next_within((away / SHARE).max(RESTART))
    }

    /// There was a connection until now.
    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Self::new(now);
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

    /// When each of so many clients tries, until a server that is away for so long is there again.
    fn tries(clients: usize, away: Duration) -> Vec<Vec<Duration>> {
        let lost = Instant::now();
        let one = |_| {
            let (mut reconnects, mut at, mut tries) = (Reconnects::new(lost), Duration::ZERO, Vec::new());
            while at < away {
                at += reconnects.pause(lost + at);
                tries.push(at);
            }
            tries
        };
        (0..clients).map(one).collect()
    }

    #[test]
    fn everybody_is_back_within_a_second_of_a_restart_and_nobody_hammers() {
        let second = Duration::from_secs(1);
        for away in [1, 2, 5, 8] {
            for tries in tries(500, second * away) {
                assert!(*tries.last().unwrap() < second * (away + 1), "away for {away} s: {tries:?}");
                assert!(tries.windows(2).all(|two| two[1] - two[0] >= Duration::from_millis(5)));
            }
        }
        // Limits of 50, 100, 200, 400 and 800 ms, then 1 s; on average a bit more than half of each.
        let all: usize = tries(500, second).iter().map(Vec::len).sum();
        assert!(all < 8 * 500, "{all} tries of 500 clients in a second");
    }

    #[test]
    fn the_longer_it_lasts_the_less_is_tried() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for tries in tries(200, 10 * minute) {
            let late: Vec<_> = tries.iter().filter(|at| **at > minute).collect();
            assert!(late.windows(2).all(|two| *two[1] - *two[0] >= second / 2), "a tenth of five seconds at least");
            assert!(*tries.last().unwrap() < 10 * minute + 5 * second);
        }
        let late: usize = tries(200, 2 * minute).iter().flatten().filter(|at| **at > minute).count();
        // Every 2.75 s on average.
        assert!((200 * 18..200 * 26).contains(&late), "{late} tries of 200 clients in a minute");
    }

    #[test]
    fn a_restarted_server_is_not_met_by_all_clients_at_once() {
        const CLIENTS: usize = 2_000;
        let (window, away) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut back: Vec<_> = tries(CLIENTS, away).iter().map(|tries| *tries.last().unwrap()).collect();
        back.sort_unstable();
        let densest = (0..CLIENTS).map(|first| {
            let end = back[first] + window;
            back[first..].partition_point(|at| *at < end)
        });
        assert!(densest.max().unwrap() < CLIENTS / 5);
        assert!(back[CLIENTS * 9 / 10] - back[CLIENTS / 10] > 5 * window);
    }

    #[test]
    fn pauses_start_over_after_a_connection() {
        let start = Instant::now();
        let (mut reconnects, hour) = (Reconnects::new(start), Duration::from_secs(3_600));
        for _ in 0..20 {
            reconnects.pause(start + hour);
        }
        reconnects.reset(start + hour);
        assert!(reconnects.pause(start + hour) <= RECONNECTS.0);
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
