//! What becomes of a record.

use std::time::Duration;

use super::*;

fn record() -> Record {
    let registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
    let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
    Record::registered(&key, &registration, 1, Timestamp::from_millis(1_000))
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
    let flip = |record: &Record, health, draining| record.flipped(health, draining, "".into(), Timestamp::default());
    let drained = flip(&record(), Health::Passing, true);
    assert_eq!(drained.status(), InstanceStatus::Draining);
    assert_eq!(flip(&drained, Health::Evicted, true).status(), InstanceStatus::Evicted);
    assert_eq!(flip(&drained, Health::Passing, false).status(), InstanceStatus::Passing);
}

#[test]
fn history_keeps_the_last_flips_and_since_the_last_one() {
    let mut record = record();
    for n in 1..=100 {
        let health = if n % 2 == 0 { Health::Suspect } else { Health::Passing };
        record = record.flipped(health, false, format!("visit {n}").into(), Timestamp::from_millis(n));
    }
    assert_eq!(record.history.len(), limits::HISTORY);
    assert_eq!(&*record.history.last().unwrap().reason, "visit 100");
    let same = record.flipped(Health::Suspect, false, "visit 101".into(), Timestamp::from_millis(101));
    assert_eq!(same.instance.since, Timestamp::from_millis(100));
    assert_eq!(&*same.instance.reason, "visit 101");
}
