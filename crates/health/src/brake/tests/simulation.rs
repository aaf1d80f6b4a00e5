//! Many instances, some of them cut off at the same moment, in simulated time: who is evicted, and how soon?

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{GONE, LIMIT, Standing, TIMEOUT, WELL, ms};
use crate::brake::Brake;

/// How many others are asked at a time, as visitors have it.
const SAMPLE: usize = 4;

/// Instances, all of them handed out, and their visitors.
struct World {
    start: Instant,
    interval: Duration,
    brake: Brake,
    instances: Vec<One>,
    agenda: BinaryHeap<Reverse<(Instant, usize, Event)>>,
    /// Whom to ask, in random order, and whose turn it is.
    roll: Vec<usize>,
    turn: usize,
    samples: u32,
    /// When instances were evicted.
    evicted: Vec<Duration>,
}

struct One {
    cut_off: bool,
    standing: Standing,
    failures: u32,
    doublings: u32,
    due: Instant,
    visited_now: bool,
    nudged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin,
    End,
}

impl World {
    /// `cut_off` of `count` instances are silent from now on. The first of them is visited at once: it was reported.
    fn new(count: usize, cut_off: usize, interval: Duration, seed: u64) -> Self {
        let (mut rng, start) = (Rng::with_seed(seed), Instant::now());
        let mut brake = Brake::new(interval, TIMEOUT, LIMIT);
        let mut instances: Vec<One> = (0..count)
            .map(|n| One {
                cut_off: n < cut_off,
                standing: WELL,
                failures: 0,
                doublings: 0,
                due: start + interval.mul_f64(rng.f64()),
                visited_now: false,
                nudged: false,
            })
            .collect();
        instances[0].due = start;
        for _ in &instances {
            brake.moved(GONE, WELL, start);
        }
        let agenda = instances.iter().enumerate().map(|(n, one)| Reverse((one.due, n, Event::Begin))).collect();
        let mut roll: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut roll);
        let (turn, samples, evicted) = (0, 0, Vec::new());
        Self { start, interval, brake, instances, agenda, roll, turn, samples, evicted }
    }

    fn run(mut self, time: Duration) -> Self {
        while let Some(Reverse((now, n, event))) = self.agenda.pop() {
            if now > self.start + time {
                break;
            }
            match event {
                Event::Begin => self.begin(n, now),
                Event::End => self.end(n, now),
            }
        }
        self
    }

    fn begin(&mut self, n: usize, now: Instant) {
        let one = &mut self.instances[n];
        // It was hurried or put off meanwhile.
        if one.due != now || one.visited_now {
            return;
        }
        one.visited_now = true;
        let takes = if one.cut_off { TIMEOUT } else { ms(1) };
        self.agenda.push(Reverse((now + takes, n, Event::End)));
    }

    fn end(&mut self, n: usize, now: Instant) {
        let next = if self.instances[n].cut_off { self.missed(n, now) } else { Some(self.answered(n, now)) };
        let one = &mut self.instances[n];
        one.visited_now = false;
        let Some(delay) = next else { return };
        one.due = if std::mem::take(&mut one.nudged) { now } else { now + delay };
        self.agenda.push(Reverse((one.due, n, Event::Begin)));
    }

    fn answered(&mut self, n: usize, now: Instant) -> Duration {
        self.brake.answered();
        self.stand(n, WELL, now);
        self.interval
    }

    /// The time until the next visit; `None` when it is evicted.
    fn missed(&mut self, n: usize, now: Instant) -> Option<Duration> {
        let fall = self.instances[n].standing.silent.unwrap_or_else(|| self.brake.fall(now));
        self.stand(n, Standing { silent: Some(fall), ..self.instances[n].standing }, now);
        let verdict = self.brake.judge(fall, now);
        if verdict.ask {
            self.ask_others(now);
        }
        let one = &mut self.instances[n];
        one.failures += 1;
        if one.failures < 2 {
            return Some(ms(200));
        }
        if !verdict.holds {
            self.stand(n, GONE, now);
            self.evicted.push(now - self.start);
            return None;
        }
        one.doublings += 1;
        Some((ms(100) * (1 << one.doublings.min(20))).min(self.interval))
    }

    fn stand(&mut self, n: usize, to: Standing, now: Instant) {
        let from = std::mem::replace(&mut self.instances[n].standing, to);
        if from != to {
            self.brake.moved(from, to, now);
        }
    }

    fn ask_others(&mut self, now: Instant) {
        self.samples += 1;
        let mut left = SAMPLE;
        for _ in 0..self.roll.len() {
            if left == 0 {
                break;
            }
            let n = self.roll[self.turn % self.roll.len()];
            self.turn += 1;
            let one = &mut self.instances[n];
            if one.standing != WELL {
                continue;
            }
            left -= 1;
            if one.visited_now {
                one.nudged = true;
            } else {
                one.due = now;
                self.agenda.push(Reverse((now, n, Event::Begin)));
            }
        }
    }
}

const INTERVALS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Sizes, each with as many seeds.
fn worlds(sizes: &[usize], seeds: u64) -> impl Iterator<Item = (Duration, usize, u64)> + '_ {
    let of = move |interval| sizes.iter().flat_map(move |size| (0..seeds).map(move |seed| (interval, *size, seed)));
    INTERVALS.into_iter().flat_map(of)
}

#[test]
fn one_that_hangs_is_evicted_after_two_timeouts_however_long_the_interval() {
    for (interval, count, seed) in worlds(&[5, 8, 100, 1_000], 20) {
        let world = World::new(count, 1, interval, seed).run(2 * interval);
        assert_eq!(world.evicted, [2 * TIMEOUT + ms(200)], "1 of {count} every {interval:?}, seed {seed}");
        assert_eq!(world.samples, 1, "1 of {count} every {interval:?}, seed {seed}");
    }
}

#[test]
fn the_first_of_a_few_that_hang_does_not_wait_for_the_round() {
    for (hang, count) in [(2, 8), (3, 8), (4, 20), (10, 100)] {
        for seed in 0..50 {
            let world = World::new(count, hang, INTERVALS[1], seed).run(2 * INTERVALS[1]);
            assert_eq!(world.evicted.len(), hang, "{hang} of {count}, seed {seed}");
            assert!(world.evicted[0] < ms(4_500), "{hang} of {count}, seed {seed}: {:?}", world.evicted);
        }
    }
}

#[test]
fn a_blackout_evicts_nobody_and_makes_no_burst() {
    for (interval, count, seed) in worlds(&[5, 8, 12, 100, 1_000], 10) {
        let world = World::new(count, count, interval, seed).run(ms(100_000));
        assert_eq!(world.evicted, [], "{count} every {interval:?}, seed {seed}");
        assert!(world.samples <= 60, "{} samples for {count} every {interval:?}", world.samples);
    }
}

/// Nobody can tell at once whether half of all are gone or a little less, but hardly more than the first may slip through.
#[test]
fn a_cut_of_more_than_half_is_held() {
    for (cut_off, count, most) in [(6, 8, 0), (15, 20, 4), (12, 20, 35), (75, 100, 5), (60, 100, 40), (600, 1_000, 15)]
    {
        for interval in INTERVALS {
            let evicted = |seed| World::new(count, cut_off, interval, seed).run(ms(100_000)).evicted.len();
            let evicted: usize = (0..50).map(evicted).sum();
            assert!(evicted <= most, "{cut_off} of {count} every {interval:?}: {evicted} in 50 runs");
        }
    }
}
