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
    assert_eq!(asked.asked, Asked { version: 8, incarnation: 1, draining: true });
    // Each as it was last, on whichever side it is.
    let both = first.observed_as(&asked);
    assert_eq!((both.asked, &both.observed), (first.asked, &seen.observed));
    let reborn = asked.reborn(&first.key(), &registration, true, 9, at);
    assert_eq!(reborn.asked, Asked { version: 9, incarnation: 9, draining: true });
    assert_eq!((reborn.observed.health, reborn.flips().len()), (Health::Starting, asked.flips().len()));
}
