//! What becomes of a record.

use std::time::Duration;

use super::*;

fn registration() -> Registration {
    Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap())
}

fn record() -> Record {
    let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
    Record::registered(&key, &registration(), 1, Timestamp::from_millis(1_000))
}

#[test]
fn who_is_not_visited_passes_by_registering() {
    let begins = |check| {
        let mut registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        registration.check = check;
        let record = Record::registered(&record().key(), &registration, 1, Timestamp::default());
        (record.status(), record.flips().len(), record.instance.reason.to_string())
    };
    assert_eq!(begins(Check::none()), (InstanceStatus::Passing, 1, "not checked".to_owned()));
    assert_eq!(begins(Check::ttl(Duration::from_secs(1))), (InstanceStatus::Passing, 1, "called in".to_owned()));
    assert_eq!(begins(Check::tcp()), (InstanceStatus::Starting, 1, "registered".to_owned()));
}

#[test]
fn draining_hides_health_but_not_an_eviction() {
    let at = Timestamp::default();
    let seen = |record: &Record, health| record.seen(health, "".into(), "here".into(), at);
    let drained = seen(&record(), Health::Passing).drained(true, 2, at);
    assert_eq!((drained.status(), &*drained.instance.reason), (InstanceStatus::Draining, "drained by request"));
    assert_eq!(seen(&drained, Health::Suspect).status(), InstanceStatus::Draining);
    let evicted = seen(&drained, Health::Evicted);
    assert_eq!(evicted.status(), InstanceStatus::Evicted);
    assert_eq!(evicted.drained(false, 3, at).status(), InstanceStatus::Evicted);
    assert_eq!(drained.drained(false, 3, at).status(), InstanceStatus::Passing);
}

#[test]
fn history_keeps_the_last_flips_and_since_the_last_one() {
    let mut record = record();
    for n in 1..=100 {
        let health = if n % 2 == 0 { Health::Suspect } else { Health::Passing };
        record = record.seen(health, format!("visit {n}").into(), "here".into(), Timestamp::from_millis(n));
    }
    assert_eq!(record.history.len(), limits::HISTORY);
    assert_eq!(&*record.history.last().unwrap().reason, "visit 100");
    let same = record.seen(Health::Suspect, "visit 101".into(), "here".into(), Timestamp::from_millis(101));
    assert_eq!(same.instance.since, Timestamp::from_millis(100));
    assert_eq!(&*same.instance.reason, "visit 101");
}

#[test]
fn what_is_asked_for_and_what_is_observed_leave_each_other_alone() {
    let (registration, at) = (Registration { tags: vec!["a".into()], ..registration() }, Timestamp::from_millis(2_000));
    let first = record();
    let seen = first.seen(Health::Suspect, "no answer in 1s".into(), "here".into(), at);
    assert_eq!((seen.asked, seen.observed.since, &*seen.observed.by), (first.asked, at, "here"));
    let asked = seen.updated(&registration, 7).drained(true, 8, at);
    assert_eq!(asked.observed, seen.observed);
    assert_eq!(asked.asked, Asked { version: 8, incarnation: 1, draining: true, ..Asked::default() });
    // Each as it was last, on whichever side it is.
    let both = first.observed_as(&asked);
    assert_eq!((both.asked, &both.observed), (first.asked, &seen.observed));
    let reborn = asked.reborn(&first.key(), &registration, true, 9, at);
    assert_eq!(reborn.asked, Asked { version: 9, incarnation: 9, draining: true, ..Asked::default() });
    assert_eq!((reborn.observed.health, reborn.flips().len()), (Health::Starting, asked.flips().len()));
}

#[test]
fn an_operators_drain_outlasts_the_lives_of_the_instance() {
    let (registration, at) = (registration(), Timestamp::from_millis(2_000));
    let held = record().held(2, at);
    assert_eq!((held.status(), held.asked.held), (InstanceStatus::Draining, true));
    let reborn = held.reborn(&held.key(), &registration, true, 3, at);
    assert!(reborn.asked.held && reborn.asked.draining);
    let free = reborn.drained(false, 4, at);
    assert_eq!((free.asked.held, free.status()), (false, InstanceStatus::Starting));
    assert!(!record().drained(true, 2, at).asked.held);
}

#[test]
fn what_is_left_of_a_blocked_one_is_out_whatever_is_seen_of_it() {
    let (until, at) = (Timestamp::from_millis(3_600_000), Timestamp::from_millis(2_000));
    let blocked = record().blocked(until, "order at 10.0.0.9:1", 7, at);
    assert_eq!(&*blocked.instance.reason, "blocked until 1970-01-01T01:00:00Z by order at 10.0.0.9:1");
    assert_eq!((blocked.asked.incarnation, blocked.is_evicted()), (7, true));
    let seen = blocked.seen(Health::Passing, "GET /health: 200".into(), "older".into(), at);
    assert_eq!((seen.status(), seen.is_evicted()), (InstanceStatus::Evicted, true));
    assert!(!blocked.expires_by_itself());
    let back = blocked.reborn(&blocked.key(), &registration(), false, 8, at);
    assert_eq!((back.asked.blocked, back.status()), (None, InstanceStatus::Starting));
}

#[test]
fn who_is_remembered_for_a_time_of_its_own_does_not_expire_in_a_store() {
    let at = Timestamp::default();
    let evicted = record().seen(Health::Evicted, "".into(), "".into(), at);
    assert!(evicted.expires_by_itself() && !record().expires_by_itself());
    let patient = Registration { forget_after: Some(Duration::from_secs(3_600)), ..registration() };
    assert!(!evicted.says(&patient) && !record().says(&patient) && record().updated(&patient, 2).says(&patient));
    assert!(!evicted.updated(&patient, 2).expires_by_itself());
}
