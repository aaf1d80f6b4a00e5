use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    interval: Duration::from_secs(5),
    failures: 2,
    probation: Duration::from_secs(60),
    eager: Duration::from_secs(60),
    start_deadline: Duration::from_secs(30),
};

/// A machine and the time it believes in.
struct Run {
    machine: Machine,
    now: Instant,
}

impl Run {
    fn new(health: Health) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(health, now, std::iter::empty()), now }
    }

    /// Visits, and lets the time until the next visit pass.
    fn visit(&mut self, evidence: Evidence, hold: Hold) -> Step {
        let step = self.machine.visited(&RULES, evidence, hold, self.now);
        self.now += match step.next {
            Next::Round => RULES.interval,
            Next::After(delay) => delay,
            Next::Forget => Duration::ZERO,
        };
        step
    }

    fn sees(&mut self, evidence: Evidence) -> Step {
        self.visit(evidence, Hold::Nothing)
    }

    fn delays(&mut self, evidence: Evidence, count: usize) -> Vec<u128> {
        let delay = |step: Step| match step.next {
            Next::After(delay) => delay.as_millis(),
            other => panic!("{other:?}"),
        };
        (0..count).map(|_| delay(self.sees(evidence))).collect()
    }
}

fn after(millis: u64) -> Next {
    Next::After(Duration::from_millis(millis))
}

#[test]
fn a_start_is_watched_closely_until_it_passes() {
    let mut run = Run::new(Health::Starting);
    assert_eq!(run.delays(Evidence::Proof, 8), [50, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
    assert_eq!(run.sees(Evidence::Pass), Step { flip: Some(Flip::Passing), next: Next::Round });
    assert_eq!(run.sees(Evidence::Pass), Step { flip: None, next: Next::Round });
}

#[test]
fn a_start_that_never_passes_ends_at_its_deadline_to_the_millisecond() {
    let mut run = Run::new(Health::Starting);
    let started = run.now;
    let evicted = (0..100).find(|_| run.sees(Evidence::Failure).flip == Some(Flip::NeverStarted));
    assert!(evicted.is_some());
    assert_eq!(run.now - started, RULES.start_deadline + DOUBT_DELAY);
}

#[test]
fn doubt_is_settled_200_ms_later() {
    let mut run = Run::new(Health::Passing);
    assert_eq!(run.sees(Evidence::Failure), Step { flip: Some(Flip::Suspect), next: after(200) });
    assert_eq!(run.sees(Evidence::Pass), Step { flip: Some(Flip::Passing), next: Next::Round });
    assert_eq!(run.sees(Evidence::Silence).flip, Some(Flip::Suspect));
    assert_eq!(run.sees(Evidence::Failure), Step { flip: Some(Flip::Evicted), next: after(200) });
}

#[test]
fn proof_needs_no_second_visit() {
    assert_eq!(Run::new(Health::Passing).sees(Evidence::Proof).flip, Some(Flip::Evicted));
    assert_eq!(Run::new(Health::Suspect).sees(Evidence::Proof).flip, Some(Flip::Evicted));
}

#[test]
fn more_failures_may_be_asked_for() {
    let rules = Rules { failures: 4, ..RULES };
    let now = Instant::now();
    let mut machine = Machine::new(Health::Passing, now, std::iter::empty());
    let flips: Vec<_> = (0..4).map(|_| machine.visited(&rules, Evidence::Failure, Hold::Nothing, now).flip).collect();
    assert_eq!(flips, [Some(Flip::Suspect), None, None, Some(Flip::Evicted)]);
}

#[test]
fn probation_is_watched_closely_and_ends() {
    let mut run = Run::new(Health::Passing);
    run.sees(Evidence::Proof);
    assert_eq!(run.delays(Evidence::Proof, 7), [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    let evicted_at = run.machine.since;
    let forgotten = (0..100).find(|_| run.sees(Evidence::Proof).next == Next::Forget);
    assert!(forgotten.is_some());
    assert_eq!(run.now - evicted_at, RULES.probation);
}

#[test]
fn a_long_probation_is_visited_ever_more_slowly_and_ends() {
    let hours = Duration::from_secs(72 * 3_600);
    let rules = Rules { probation: hours, ..RULES };
    let mut run = Run::new(Health::Passing);
    run.sees(Evidence::Proof);
    let (evicted_at, mut visits) = (run.machine.since, Vec::new());
    let left = loop {
        let step = run.machine.visited(&rules, Evidence::Proof, Hold::Nothing, run.now);
        let Next::After(delay) = step.next else { break step };
        visits.push(delay.as_millis());
        run.now += delay;
    };
    assert_eq!((left.next, run.now - evicted_at), (Next::Forget, hours));
    assert_eq!(visits[..6], [200, 400, 800, 1_600, 3_200, 5_000], "for the usual probation as often as everybody else");
    let slow = visits.iter().filter(|delay| **delay == 30_000).count();
    assert!((8_600..8_640).contains(&slow) && visits.len() < slow + 30, "{slow} of {}", visits.len());
    assert!(!run.machine.is_forgotten(&rules, evicted_at + hours / 2));
    assert!(run.machine.is_forgotten(&rules, evicted_at + hours));
}

#[test]
fn late_in_a_long_probation_a_pass_reinstates_at_once() {
    let rules = Rules { probation: Duration::from_secs(72 * 3_600), ..RULES };
    let mut run = Run::new(Health::Passing);
    run.sees(Evidence::Proof);
    run.now += Duration::from_secs(3_600);
    let step = run.machine.visited(&rules, Evidence::Pass, Hold::Nothing, run.now);
    assert_eq!(step, Step { flip: Some(Flip::Reinstated), next: Next::Round });
}

#[test]
fn one_that_was_out_for_long_before_a_restart_is_visited_slowly_at_once() {
    let rules = Rules { probation: Duration::from_secs(72 * 3_600), ..RULES };
    let since = Instant::now();
    let now = since + Duration::from_secs(3_600);
    let mut machine = Machine::new(Health::Evicted, since, [since].into_iter());
    for _ in 0..3 {
        let step = machine.visited(&rules, Evidence::Proof, Hold::Nothing, now);
        assert_eq!(step, Step { flip: None, next: Next::After(SLOW) });
    }
    let recent = [now, now].into_iter();
    let mut machine = Machine::new(Health::Evicted, since, recent);
    let mut next = |evidence| machine.visited(&rules, evidence, Hold::Nothing, now).next;
    next(Evidence::Pass);
    let Next::After(delay) = next(Evidence::Failure) else { panic!() };
    assert!(delay < RULES.interval, "whoever passed once is looked at closely: {delay:?}");
}

#[test]
fn late_in_a_long_probation_what_cannot_be_made_is_not_tried_more_often() {
    let rules = Rules { probation: Duration::from_secs(72 * 3_600), ..RULES };
    let mut run = Run::new(Health::Passing);
    run.sees(Evidence::Proof);
    run.now += Duration::from_secs(3_600);
    let mut last = Next::Round;
    for _ in 0..12 {
        last = run.machine.visited(&rules, Evidence::Nothing, Hold::Nothing, run.now).next;
    }
    assert_eq!(last, Next::After(SLOW));
}

#[test]
fn flapping_doubles_the_passes_that_reinstatement_needs() {
    let mut run = Run::new(Health::Passing);
    for needed in [1, 2, 4, 8, 8] {
        run.sees(Evidence::Proof);
        let mut passes = 1;
        while run.sees(Evidence::Pass).flip.is_none() {
            passes += 1;
        }
        assert_eq!(passes, needed);
    }
    run.now += DAMPING_WINDOW;
    run.sees(Evidence::Proof);
    assert_eq!(run.sees(Evidence::Pass).flip, Some(Flip::Reinstated), "ten quiet minutes later all is forgiven");
}

#[test]
fn passes_must_come_in_a_row() {
    let now = Instant::now();
    let mut machine = Machine::new(Health::Evicted, now, [now, now, now].into_iter());
    let mut flip = |evidence| machine.visited(&RULES, evidence, Hold::Nothing, now).flip;
    for evidence in [Evidence::Pass, Evidence::Pass, Evidence::Pass, Evidence::Silence] {
        assert_eq!(flip(evidence), None);
    }
    for _ in 0..3 {
        assert_eq!(flip(Evidence::Pass), None);
    }
    assert_eq!(flip(Evidence::Pass), Some(Flip::Reinstated));
}

#[test]
fn held_silence_stays_suspect_and_is_asked_again() {
    let mut run = Run::new(Health::Passing);
    assert_eq!(run.visit(Evidence::Silence, Hold::Silence).flip, Some(Flip::Suspect));
    assert!(!run.machine.held());
    let delays: Vec<_> = (0..6).map(|_| run.visit(Evidence::Silence, Hold::Silence).next).collect();
    assert_eq!(delays, [200, 400, 800, 1_600, 3_200, 5_000].map(after));
    assert!(run.machine.held() && run.machine.health() == Health::Suspect);
    assert_eq!(run.sees(Evidence::Silence).flip, Some(Flip::Evicted));
}

#[test]
fn silence_alone_is_held() {
    for evidence in [Evidence::Failure, Evidence::Proof] {
        assert_eq!(Run::new(Health::Suspect).visit(evidence, Hold::Silence).flip, Some(Flip::Evicted));
        let mut run = Run::new(Health::Starting);
        run.now += RULES.start_deadline;
        assert_eq!(run.visit(evidence, Hold::Silence).flip, Some(Flip::NeverStarted));
    }
    let mut run = Run::new(Health::Starting);
    run.now += RULES.start_deadline;
    assert_eq!(run.visit(Evidence::Silence, Hold::Silence).next, after(50));
    assert_eq!(run.visit(Evidence::Silence, Hold::Nothing).flip, Some(Flip::NeverStarted));
}

#[test]
fn silence_that_was_held_does_not_count_against_one_that_answers() {
    let mut run = Run::new(Health::Passing);
    for _ in 0..4 {
        run.visit(Evidence::Silence, Hold::Silence);
    }
    assert!(run.machine.held());
    assert_eq!(run.sees(Evidence::Failure), Step { flip: None, next: after(200) });
    assert_eq!(run.sees(Evidence::Failure).flip, Some(Flip::Evicted));
}

#[test]
fn a_visit_that_could_not_be_made_says_nothing() {
    for health in [Health::Starting, Health::Passing, Health::Suspect, Health::Evicted] {
        let mut run = Run::new(health);
        assert_eq!(run.delays(Evidence::Nothing, 6), [200, 400, 800, 1_600, 3_200, 5_000]);
        assert_eq!(run.machine.health(), health);
        run.sees(Evidence::Pass);
        assert_eq!(run.delays(Evidence::Nothing, 1), [200], "soon, when it has just begun");
    }
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        4 => Just(Evidence::Pass),
        1 => Just(Evidence::Proof),
        2 => Just(Evidence::Failure),
        2 => Just(Evidence::Silence),
        1 => Just(Evidence::Nothing),
    ]
}

fn hold() -> impl Strategy<Value = Hold> {
    prop_oneof![4 => Just(Hold::Nothing), 2 => Just(Hold::Silence)]
}

/// What a reader of the design would write down: what happened since the last flip, and nothing clever.
#[derive(Default)]
struct Naive {
    fails: u32,
    passes: u32,
    evictions: Vec<Instant>,
}

proptest! {
    #[test]
    fn no_sequence_of_visits_breaks_the_rules(
        interval in 1_u64..20_000,
        failures in 1_u32..5,
        visits in proptest::collection::vec((evidence(), hold(), 0_u64..400_000), 1..200),
    ) {
        let rules = Rules { interval: Duration::from_millis(interval), failures, ..RULES };
        let mut now = Instant::now();
        let mut machine = Machine::new(Health::Starting, now, std::iter::empty());
        let mut naive = Naive::default();
        for (evidence, hold, late) in visits {
            let before = machine.health();
            let step = machine.visited(&rules, evidence, hold, now);
            let after = machine.health();
            naive.fails = match evidence { Evidence::Pass => 0, Evidence::Nothing => naive.fails, _ => naive.fails + 1 };
            naive.passes = match evidence { Evidence::Pass => naive.passes + 1, Evidence::Nothing => naive.passes, _ => 0 };
            if let Next::After(delay) = step.next {
                prop_assert!(delay >= SHORTEST_DELAY && delay <= rules.interval.max(SHORTEST_DELAY));
            }
            prop_assert_eq!(step.flip.is_some(), before != after);
            match (before, after) {
                (Health::Evicted, Health::Passing) => {
                    let recent = naive.evictions.iter().filter(|at| now - **at < DAMPING_WINDOW).count();
                    prop_assert!(naive.passes >= [1, 1, 2, 4, 8][recent.min(4)], "handed out too early");
                }
                (Health::Evicted, Health::Evicted) => {}
                (Health::Starting, Health::Passing) => prop_assert_eq!(evidence, Evidence::Pass),
                (_, Health::Evicted) => {
                    prop_assert!(!(hold == Hold::Silence && evidence == Evidence::Silence));
                    let enough = naive.fails >= failures || evidence == Evidence::Proof;
                    prop_assert!(enough || before == Health::Starting);
                    naive.evictions.push(now);
                    naive.passes = 0;
                }
                (_, Health::Starting) => prop_assert_eq!(before, Health::Starting),
                (Health::Evicted, Health::Suspect) => prop_assert!(false, "suspects are handed out"),
                _ => {}
            }
            if step.next == Next::Forget {
                prop_assert_eq!(after, Health::Evicted);
                break;
            }
            now += Duration::from_millis(late);
        }
    }
}
