use proptest::prelude::*;

use super::*;

mod simulation;

const INTERVAL: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(1);
const WELL: Standing = Standing { visited: true, unheard: false, silent: None, held: false };
const GONE: Standing = Standing { visited: false, ..WELL };
const UNHEARD: Standing = Standing { unheard: true, ..WELL };

/// A fall before which nothing had happened.
fn first(at: Instant) -> Fall {
    Fall { at, answered: 0, fallen: 0 }
}

/// Silent since then, when nothing had happened yet.
fn silent(at: Instant) -> Standing {
    Standing { silent: Some(first(at)), ..WELL }
}

/// A brake with `count` healthy instances, and the time.
fn with(count: u32) -> (Brake, Instant) {
    let now = Instant::now();
    let mut brake = Brake::new(INTERVAL, TIMEOUT, LIMIT);
    for _ in 0..count {
        brake.moved(GONE, WELL, now);
    }
    (brake, now)
}

/// Whether an instance that fell silent then, when nothing had happened yet, is kept now; and how the brake turns.
fn holds(brake: &mut Brake, fell: Instant, now: Instant) -> (bool, Option<Turn>) {
    let verdict = brake.judge(first(fell), now);
    (verdict.holds, verdict.turn)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn more_than_half_and_at_least_five_put_it_on() {
    for (visited, fallen, on) in
        [(4, 4, false), (5, 5, true), (9, 5, true), (10, 5, false), (11, 6, true), (100, 50, false)]
    {
        let (mut brake, now) = with(visited);
        let turns = (0..fallen).filter_map(|_| brake.moved(WELL, silent(now), now)).collect::<Vec<_>>();
        assert_eq!(turns == [Turn::On], on, "{fallen} of {visited}: {turns:?}");
    }
}

#[test]
fn a_slow_trickle_is_not_ours() {
    let (mut brake, mut now) = with(10);
    for _ in 0..10 {
        assert_eq!(brake.moved(WELL, silent(now), now), None);
        now += ms(1_500);
    }
    assert_eq!(brake.counts().silent, 10);
}

#[test]
fn it_lets_go_when_the_share_falls_and_not_when_time_passes() {
    let (mut brake, start) = with(10);
    for _ in 0..10 {
        brake.moved(WELL, silent(start), start);
    }
    let mut now = start + ms(60_000);
    assert_eq!(holds(&mut brake, start, now), (true, None), "everyone is still silent");
    for _ in 0..4 {
        assert_eq!(brake.moved(silent(start), WELL, now), None);
    }
    now += ms(100);
    brake.answered();
    assert_eq!(brake.moved(silent(start), WELL, now), Some(Turn::Off));
    assert_eq!(holds(&mut brake, start, now + TIMEOUT), (true, None), "that visit may have begun before");
    assert_eq!(holds(&mut brake, start, now + TIMEOUT * 3 / 2), (false, None));
}

#[test]
fn it_lets_go_at_its_limit_and_stays_off_until_the_share_fell() {
    let (mut brake, start) = with(10);
    for _ in 0..10 {
        brake.moved(WELL, silent(start), start);
    }
    assert_eq!(brake.assess(start + LIMIT - ms(1)), None);
    let now = start + LIMIT;
    assert_eq!(holds(&mut brake, start, now), (false, Some(Turn::Spent)));
    assert_eq!(brake.moved(silent(start), GONE, now), None, "an eviction");
    assert_eq!(brake.moved(GONE, silent(now), now), None, "does not put it on again");
    for _ in 0..10 {
        brake.moved(silent(start), WELL, now);
    }
    let turns = (0..10).filter_map(|_| brake.moved(WELL, silent(now), now)).collect::<Vec<_>>();
    assert_eq!(turns, [Turn::On], "a new blackout");
}

#[test]
fn the_first_to_fall_in_a_blackout_waits_for_the_others() {
    let (mut brake, start) = with(100);
    // 20 visits a second; each falls silent a second after it begins.
    let mut evictable = 0;
    for n in 0..100 {
        let now = start + ms(1_000 + n * 50);
        brake.moved(WELL, silent(now), now);
        evictable += u32::from(!holds(&mut brake, start + ms(1_000), now).0);
    }
    assert_eq!(evictable, 0);
    assert_eq!(brake.counts().on_since, Some(start + ms(1_000 + 50 * 50)));
}

#[test]
fn one_dead_instance_among_healthy_ones_does_not_wait() {
    let (mut brake, start) = with(100);
    brake.moved(WELL, silent(start), start);
    for _ in 0..3 {
        assert!(holds(&mut brake, start, start).0, "too few others were heard since");
        brake.answered();
    }
    assert!(!holds(&mut brake, start, start + ms(1_200)).0);
    let late = brake.fall(start + ms(1_300));
    brake.moved(WELL, Standing { silent: Some(late), ..WELL }, late.at);
    assert!(brake.judge(late, late.at).holds, "what was heard earlier does not count for the next one");
    let (mut few, start) = with(4);
    few.moved(WELL, silent(start), start);
    assert!(!holds(&mut few, start, start).0, "four instances prove nothing about us");
}

#[test]
fn who_was_evicted_before_is_a_matter_that_is_settled() {
    let (mut brake, start) = with(100);
    for n in 0..10 {
        let fall = brake.fall(start + ms(n));
        brake.moved(WELL, Standing { silent: Some(fall), ..WELL }, fall.at);
        brake.moved(Standing { silent: Some(fall), ..WELL }, GONE, fall.at);
    }
    let fall = brake.fall(start + ms(100));
    brake.moved(WELL, Standing { silent: Some(fall), ..WELL }, fall.at);
    for _ in 0..3 {
        assert!(brake.judge(fall, fall.at).holds);
        brake.answered();
    }
    assert!(!brake.judge(fall, fall.at).holds, "four asked at once must be enough");
}

#[test]
fn others_are_asked_at_once_and_once_per_timeout() {
    let (mut brake, start) = with(100);
    let ask = |brake: &mut Brake, now| brake.judge(first(now), now).ask;
    brake.moved(WELL, silent(start), start);
    assert!(ask(&mut brake, start));
    for n in 1..20 {
        let now = start + ms(n * 50);
        brake.moved(WELL, silent(now), now);
        assert!(!ask(&mut brake, now), "a blackout must not make a burst of visits");
    }
    assert!(ask(&mut brake, start + TIMEOUT), "still not clear");
    for _ in 0..40 {
        brake.answered();
    }
    assert!(!ask(&mut brake, start + 2 * TIMEOUT), "clear");
    let (mut few, start) = with(4);
    few.moved(WELL, silent(start), start);
    assert!(!ask(&mut few, start), "nobody is kept, so nobody need be asked");
}

#[test]
fn doubt_ends_after_an_interval_in_which_somebody_answered() {
    let (mut brake, start) = with(6);
    brake.moved(WELL, silent(start), start);
    brake.answered();
    assert!(holds(&mut brake, start, start + INTERVAL - ms(1)).0);
    assert!(!holds(&mut brake, start, start + INTERVAL).0);
}

/// Two of six have short timeouts, the others' visits take a minute: in a blackout only the two can be missed so far.
#[test]
fn while_nobody_answers_doubt_goes_on_up_to_the_limit() {
    let (mut brake, start) = with(6);
    for _ in 0..2 {
        brake.moved(WELL, silent(start), start);
    }
    assert!(holds(&mut brake, start, start + 2 * INTERVAL).0);
    assert!(holds(&mut brake, start, start + LIMIT - ms(1)).0);
    assert!(!holds(&mut brake, start, start + LIMIT).0);
}

#[test]
fn who_was_never_heard_since_the_start_does_not_count_as_well() {
    let (mut brake, start) = with(0);
    for _ in 0..100 {
        brake.moved(GONE, UNHEARD, start);
    }
    let turns = (0..5).filter_map(|_| brake.moved(UNHEARD, silent(start), start)).collect::<Vec<_>>();
    assert_eq!(turns, [Turn::On], "all that were heard of are silent");
    let turns = (0..5).filter_map(|_| brake.moved(UNHEARD, WELL, start)).collect::<Vec<_>>();
    assert_eq!(turns, [Turn::Off], "half of them are not");
    assert_eq!(brake.counts().visited, 100);
}

proptest! {
    #[test]
    fn counts_agree_with_the_standings(moves in proptest::collection::vec((0_usize..8, any::<(bool, bool, bool)>(), 0_u64..3_000), 0..300)) {
        let (mut brake, mut now) = with(0);
        let mut all = [GONE; 8];
        for (who, (visited, is_silent, held), late) in moves {
            now += ms(late);
            let to = Standing { visited, silent: is_silent.then(|| brake.fall(now)), held, ..WELL };
            brake.moved(all[who], to, now);
            all[who] = to;
            let count = |f: fn(&Standing) -> bool| u32::try_from(all.iter().filter(|s| f(s)).count()).unwrap();
            let counts = brake.counts();
            prop_assert_eq!(counts.visited, count(|s| s.visited));
            prop_assert_eq!(counts.silent, count(|s| s.visited && s.silent.is_some()));
            prop_assert_eq!(counts.held, count(|s| s.held));
            let most = counts.silent >= FEWEST && counts.silent * 2 > counts.visited;
            prop_assert!(counts.on_since.is_none() || most, "on without reason");
            prop_assert!(brake.pieces.len() <= 22);
        }
    }
}
