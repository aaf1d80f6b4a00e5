//! Each call by itself.

use super::{super::Full, Instant, NonZeroU32, SECOND, State, Subsets, busy, ids, of, subsets};

#[test]
fn a_client_that_comes_back_in_time_has_what_it_had() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    let had = of(&subsets, "c-7");
    subsets.leave("c-7", now + 10 * SECOND);
    assert_eq!(subsets.due(), Some(now + 10 * SECOND));
    assert_eq!(subsets.expire(now + 9 * SECOND), []);
    assert_eq!(subsets.join("c-7", &[], now + 9 * SECOND), Ok(vec![]));
    assert_eq!(subsets.due(), None);
    assert_eq!(subsets.expire(now + 99 * SECOND), []);
    assert_eq!(of(&subsets, "c-7"), had);
}

#[test]
fn a_client_that_stays_away_is_forgotten() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    subsets.leave("c-7", now + SECOND);
    subsets.leave("c-7", now + 5 * SECOND);
    subsets.leave("nobody", now);
    subsets.expire(now + SECOND);
    assert!(subsets.of("c-7").is_none());
    assert_eq!(subsets.len(), 49);
    State::of(&subsets).check_even();
}

#[test]
fn two_clients_of_one_name_share_a_set() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    let had = of(&subsets, "c-7");
    assert_eq!(subsets.join("c-7", &ids(0..5), now), Ok(vec![]));
    subsets.leave("c-7", now);
    assert_eq!(subsets.expire(now + SECOND), []);
    assert_eq!(of(&subsets, "c-7"), had);
    subsets.leave("c-7", now + SECOND);
    subsets.expire(now + SECOND);
    assert!(subsets.of("c-7").is_none());
}

#[test]
fn whoever_asks_for_more_than_there_are_gets_all() {
    let now = Instant::now();
    let mut subsets = busy(20, 3, 8, now);
    assert_eq!(of(&subsets, "c-1"), ids(0..8).into_iter().collect());
    let moved = subsets.update(&ids([8]), &ids([0]), now);
    assert_eq!(moved.len(), 3);
    assert!(moved.iter().all(|moved| moved.gained == ids([8]) && moved.lost == ids([0])));
    subsets.update(&[], &ids(0..9), now);
    assert_eq!(subsets.spread(), None);
    assert!(of(&subsets, "c-1").is_empty());
    subsets.update(&ids(0..30), &[], now);
    assert_eq!(of(&subsets, "c-1").len(), 20);
}

#[test]
fn what_is_known_already_changes_nothing() {
    let now = Instant::now();
    let mut subsets = busy(3, 10, 10, now);
    assert_eq!(subsets.update(&ids(0..10), &ids(20..30), now), []);
    assert_eq!(subsets.update(&ids(5..40), &ids(5..40), now).len(), 10, "30 came");
    assert_eq!(subsets.update(&ids([1]), &ids([1]), now), []);
}

#[test]
fn a_crowd_is_refused_until_somebody_is_gone() {
    let now = Instant::now();
    let mut subsets = subsets(3, 4, now);
    subsets.update(&ids(0..9), &[], now);
    for client in ["a", "b", "c", "d"] {
        subsets.join(client, &[], now).unwrap();
    }
    let refusal = subsets.join("e", &[], now).unwrap_err();
    assert_eq!(refusal, Full { limit: 4 });
    assert!(refusal.to_string().starts_with("4 clients have a subset of this service"));
    subsets.join("a", &[], now).unwrap();
    subsets.leave("c", now + 20 * SECOND);
    subsets.leave("b", now + 10 * SECOND);
    subsets.join("e", &[], now).unwrap();
    assert!(subsets.of("b").is_none(), "b was to be forgotten before c");
    assert!(subsets.of("c").is_some());
    State::of(&subsets).check(&subsets);
}

#[test]
fn after_a_restart_everybody_gets_back_what_it_had() {
    let now = Instant::now();
    let old = busy(20, 300, 1_000, now);
    let settled = now + 30 * SECOND;
    let mut new = subsets(20, usize::MAX, settled);
    new.update(&ids(0..1_000), &[], now);
    for client in (0..300).map(|number| format!("c-{}", number * 7 % 300)) {
        let had: Vec<_> = old.of(&client).unwrap().cloned().collect();
        new.join(&client, &had, now).unwrap();
    }
    assert_eq!(new.due(), Some(settled));
    assert_eq!(new.expire(settled), []);
    assert_eq!(new.due(), None);
    assert_eq!(State::of(&new).sets, State::of(&old).sets);
}

#[test]
fn what_clients_claim_to_have_had_does_not_stay_uneven() {
    let now = Instant::now();
    let settled = now + 30 * SECOND;
    let mut subsets = subsets(5, usize::MAX, settled);
    subsets.update(&ids(0..50), &[], now);
    for client in 0..40 {
        subsets.join(&format!("c-{client}"), &ids(0..9), now).unwrap();
    }
    assert_eq!(subsets.spread(), Some((0, 40)));
    subsets.leave("c-0", now);
    assert_eq!(subsets.expire(settled).len(), 39);
    State::of(&subsets).check_even();
    subsets.join("late", &ids(0..9), settled).unwrap();
    State::of(&subsets).check_even();
}

#[test]
fn a_settled_service_takes_over_what_balance_allows() {
    let now = Instant::now();
    let mut subsets = busy(5, 100, 50, now);
    let before = State::of(&subsets);
    let wanted = ids(10..15);
    subsets.join("late", &wanted, now).unwrap();
    assert_eq!(of(&subsets, "late"), wanted.into_iter().collect(), "each had ten, and eleven is even");
    subsets.join("later", &ids(10..15), now).unwrap();
    assert_eq!(before.cost(&State::of(&subsets)).moves, 10, "nobody else had to move");
    State::of(&subsets).check_even();
}

#[test]
fn ties_are_broken_by_hashes_and_not_by_order() {
    let now = Instant::now();
    let (mut up, mut down) = (subsets(5, 100, now), subsets(5, 100, now));
    let mut reversed = ids(0..200);
    up.update(&reversed, &[], now);
    reversed.reverse();
    down.update(&reversed, &[], now);
    for client in (0..90).map(|number| format!("c-{number}")) {
        up.join(&client, &[], now).unwrap();
        down.join(&client, &[], now).unwrap();
    }
    up.update(&ids(200..230), &ids(3..70), now);
    let (mut added, mut removed) = (ids(200..230), ids(3..70));
    added.reverse();
    removed.reverse();
    down.update(&added, &removed, now);
    assert_eq!(State::of(&up).sets, State::of(&down).sets);
    let mut other = Subsets::new(NonZeroU32::new(5).unwrap(), 100, 8, now);
    other.update(&ids(0..200), &[], now);
    other.join("c-0", &[], now).unwrap();
    assert_ne!(of(&other, "c-0"), of(&busy(5, 1, 200, now), "c-0"), "the seed counts");
}

#[test]
fn those_who_have_an_instance_are_known() {
    let now = Instant::now();
    let mut subsets = busy(5, 30, 12, now);
    subsets.leave("c-3", now + SECOND);
    for id in ids(0..12) {
        let mut holders: Vec<String> = subsets.holders(&id).map(ToString::to_string).collect();
        holders.sort();
        let state = State::of(&subsets);
        let having = state.held.iter().filter(|client| state.sets[*client].contains(&id));
        let mut having: Vec<String> = having.map(ToString::to_string).collect();
        having.sort();
        assert_eq!(holders, having);
    }
    assert_eq!(subsets.holders(&"other".parse().unwrap()).count(), 0);
    assert_eq!(subsets.instances().count(), 12);
}
