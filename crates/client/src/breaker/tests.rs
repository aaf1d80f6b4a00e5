//! The circuit in simulated time.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A circuit, its rules and its clock.
struct World {
    rules: CircuitBreaker,
    circuit: Circuit,
    now: Instant,
}

impl World {
    fn new(rules: CircuitBreaker) -> Self {
        let now = Instant::now();
        Self { rules, circuit: Circuit::new(now), now }
    }

    fn fail(&mut self) -> Option<Turn> {
        self.circuit.failed(&self.rules, 1.0, self.now)
    }

    fn succeed(&mut self) -> Option<Turn> {
        self.circuit.succeeded(&self.rules, self.now)
    }

    fn after(&mut self, time: Duration) -> Standing {
        self.now += time;
        self.circuit.standing(self.now)
    }

    /// Fails until the circuit opens, and tells for how long.
    fn open(&mut self) -> Duration {
        loop {
            if let Some(Turn::Opened { ejection, .. }) = self.fail() {
                return ejection;
            }
        }
    }
}

#[test]
fn opens_after_failures_in_a_row_only() {
    let mut world = World::new(CircuitBreaker::default());
    for _ in 0..4 {
        assert_eq!(world.fail(), None);
    }
    world.succeed();
    for _ in 0..4 {
        assert_eq!(world.fail(), None);
    }
    assert_eq!(world.fail(), Some(Turn::Opened { ejection: SECOND, failed_in_a_row: 5 }));
    assert_eq!(world.after(SECOND / 2), Standing::Open(world.now + SECOND / 2));
    assert!(matches!(world.after(SECOND / 2), Standing::HalfOpen(_)));
}

#[test]
fn opens_when_too_large_a_share_fails() {
    let mut world = World::new(CircuitBreaker::default());
    for turn in 0..19 {
        let turned = if turn % 2 == 0 { world.fail() } else { world.succeed() };
        assert_eq!(turned, None, "{turn}");
    }
    assert!(matches!(world.fail(), Some(Turn::Opened { failed_in_a_row: 2, .. })));
    // A third is not enough, however long it goes on.
    let mut world = World::new(CircuitBreaker::default());
    for turn in 0..3_000 {
        world.after(Duration::from_millis(7));
        assert_eq!(if turn % 3 == 0 { world.fail() } else { world.succeed() }, None, "{turn}");
    }
}

#[test]
fn what_is_long_ago_counts_no_more() {
    let mut world = World::new(CircuitBreaker::default().consecutive_failures(100));
    for _ in 0..19 {
        assert_eq!(world.fail(), None);
    }
    world.after(11 * SECOND);
    for _ in 0..19 {
        assert_eq!(world.fail(), None);
    }
    assert!(world.fail().is_some());
}

#[test]
fn each_ejection_is_twice_as_long_until_it_was_well_for_a_while() {
    let mut world = World::new(CircuitBreaker::default());
    let mut expected = SECOND;
    assert_eq!(world.open(), expected);
    for _ in 0..10 {
        expected = (expected * 2).min(60 * SECOND);
        world.after(60 * SECOND);
        assert_eq!(world.open(), expected, "the trial failed");
    }
    world.after(60 * SECOND);
    assert_eq!((world.succeed(), world.succeed(), world.succeed()), (None, None, Some(Turn::Closed)));
    world.after(SECOND);
    assert_eq!(world.open(), 60 * SECOND, "it was not well for long");
    world.after(60 * SECOND);
    for _ in 0..3 {
        world.succeed();
    }
    world.after(60 * SECOND);
    assert_eq!(world.open(), SECOND, "forgiven");
}

#[test]
fn what_is_told_while_it_is_open_changes_nothing_and_some_answers_close_it_then() {
    let mut world = World::new(CircuitBreaker::default());
    world.open();
    let until = world.now + SECOND;
    assert_eq!(world.fail(), None);
    for _ in 0..10 {
        assert_eq!(world.succeed(), None);
    }
    assert_eq!(world.after(SECOND / 10), Standing::Open(until));
    assert!(matches!(world.after(SECOND), Standing::HalfOpen(_)));
    assert_eq!((world.succeed(), world.succeed()), (None, None));
    assert!(matches!(world.after(Duration::ZERO), Standing::HalfOpen(_)));
    assert_eq!(world.succeed(), Some(Turn::Closed));
    assert_eq!(world.after(Duration::ZERO), Standing::Closed);
}

#[test]
fn an_answer_that_is_rejected_never_was_one() {
    let mut world = World::new(CircuitBreaker::default());
    let reject = |world: &mut World| {
        let before = world.circuit.before();
        world.succeed();
        world.circuit.rejected(&world.rules, before, 1.0, world.now)
    };
    for _ in 0..2 {
        assert_eq!((world.fail(), reject(&mut world)), (None, None));
    }
    assert_eq!(reject(&mut world), Some(Turn::Opened { ejection: SECOND, failed_in_a_row: 5 }));
    world.after(SECOND);
    assert_eq!((world.succeed(), world.succeed()), (None, None));
    assert!(matches!(reject(&mut world), Some(Turn::Opened { .. })), "also the one that would have closed it");
    // An answer since then is one.
    let mut world = World::new(CircuitBreaker::default());
    for _ in 0..4 {
        world.fail();
    }
    let before = world.circuit.before();
    world.succeed();
    world.succeed();
    assert_eq!(world.circuit.rejected(&world.rules, before, 1.0, world.now), None);
}

#[test]
fn a_call_that_was_overdue_and_is_answered_was_no_failure() {
    let mut world = World::new(CircuitBreaker::default().consecutive_failures(100));
    for _ in 0..50 {
        assert_eq!(world.fail(), None);
        let counted = world.circuit.counted(world.now);
        world.circuit.take_back(counted);
        world.succeed();
    }
    assert_eq!(world.fail(), None);
}

#[test]
fn a_call_that_was_overdue_and_tells_nothing_else_is_no_part_of_a_row() {
    let mut world = World::new(CircuitBreaker::default());
    for _ in 0..50 {
        assert_eq!(world.fail(), None);
        let counted = world.circuit.counted(world.now);
        world.circuit.take_back(counted);
    }
    // What came after an answer is another row.
    assert_eq!(world.fail(), None);
    let counted = world.circuit.counted(world.now);
    world.succeed();
    for _ in 0..4 {
        assert_eq!(world.fail(), None);
    }
    world.circuit.take_back(counted);
    assert!(matches!(world.fail(), Some(Turn::Opened { failed_in_a_row: 5, .. })));
}

#[test]
fn no_ejection_is_beyond_all_time() {
    for first in [SECOND, Duration::MAX] {
        let mut world = World::new(CircuitBreaker::default().ejection(first, Duration::MAX));
        assert!(world.circuit.hold(&world.rules, Duration::MAX, world.now));
        for _ in 0..100 {
            world.after(400 * 24 * 3_600 * SECOND);
            assert!(world.open() <= 365 * 24 * 3_600 * SECOND);
        }
    }
}

#[test]
fn a_failure_that_was_forgotten_takes_no_other_back() {
    let rules = CircuitBreaker::default().consecutive_failures(100).failure_ratio(0.5, 20, 10 * SECOND);
    let mut world = World::new(rules);
    world.fail();
    let counted = world.circuit.counted(world.now);
    world.after(30 * SECOND);
    for _ in 0..9 {
        world.succeed();
        world.fail();
    }
    world.succeed();
    world.circuit.take_back(counted);
    assert!(matches!(world.fail(), Some(Turn::Opened { .. })), "ten of twenty");
}

#[test]
fn who_asks_to_be_left_alone_is_within_limits() {
    let mut world = World::new(CircuitBreaker::default());
    let hold = |world: &mut World, secs| world.circuit.hold(&world.rules, SECOND * secs, world.now);
    assert!(!hold(&mut world, 0) && hold(&mut world, 3) && !hold(&mut world, 2));
    assert_eq!(world.after(SECOND), Standing::Open(world.now + 2 * SECOND));
    assert!(!hold(&mut world, 1_000_000), "it is passed over already, and now for longer");
    assert_eq!(world.after(Duration::ZERO), Standing::Open(world.now + 60 * SECOND));
    assert!(matches!(world.after(60 * SECOND), Standing::HalfOpen(_)));
    assert!(!hold(&mut world, 0), "for no time at all");
    assert!(hold(&mut world, 1), "anew");
    let mut world = World::new(CircuitBreaker::never());
    assert!(!hold(&mut world, 3), "not against the caller's will");
}

#[test]
fn its_share_grows_from_a_tenth() {
    let mut world = World::new(CircuitBreaker::default());
    for (after, share) in [(0, 0.1), (5, 0.5), (20, 1.0)] {
        let now = world.now + SECOND * after;
        assert!((world.circuit.share(&world.rules, now) - share).abs() < 1e-9, "{after}");
    }
    world.rules = world.rules.slow_start(Duration::MAX);
    assert!(world.rules.step() <= 3_600 * SECOND && world.circuit.share(&world.rules, world.now) <= 0.1);
    world.rules = world.rules.slow_start(Duration::ZERO);
    assert!((world.circuit.share(&world.rules, world.now) - 1.0).abs() < 1e-9);
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refused = |rules: CircuitBreaker| rules.validate().unwrap_err().field == "circuit_breaker";
    assert!(CircuitBreaker::default().validate().is_ok() && CircuitBreaker::never().validate().is_ok());
    assert!(refused(CircuitBreaker::default().consecutive_failures(0)));
    assert!(refused(CircuitBreaker::default().failure_ratio(0.0, 20, SECOND)));
    assert!(refused(CircuitBreaker::default().failure_ratio(f64::NAN, 20, SECOND)));
    assert!(refused(CircuitBreaker::default().failure_ratio(0.5, 0, SECOND)));
    assert!(refused(CircuitBreaker::default().failure_ratio(0.5, 20, Duration::ZERO)));
    assert!(refused(CircuitBreaker::default().ejection(Duration::ZERO, SECOND)));
    assert!(refused(CircuitBreaker::default().ejection(2 * SECOND, SECOND)));
}

proptest! {
    /// Whatever happens: an ejection ends, within the longest one and its jitter, and never opens by itself.
    #[test]
    fn no_ejection_is_for_ever(steps in proptest::collection::vec((0..3_u8, 0..5_000_u64, 0.8..1.2_f64), 1..300)) {
        let rules = CircuitBreaker::default();
        let mut now = Instant::now();
        let mut circuit = Circuit::new(now);
        for (step, millis, jitter) in steps {
            now += Duration::from_millis(millis);
            let before = circuit.standing(now);
            let turn = match step {
                0 => circuit.succeeded(&rules, now),
                _ => circuit.failed(&rules, jitter, now),
            };
            match circuit.standing(now) {
                Standing::Open(until) => prop_assert!(until <= now + rules.longest_ejection.mul_f64(1.2)),
                Standing::HalfOpen(_) => prop_assert!(step == 0, "a failure always settles a half-open circuit"),
                Standing::Closed => prop_assert!(step == 0 || before == Standing::Closed),
            }
            prop_assert_eq!(matches!(turn, Some(Turn::Opened { .. })), matches!((before, circuit.standing(now)), (Standing::Closed | Standing::HalfOpen(_), Standing::Open(_))));
        }
    }
}
