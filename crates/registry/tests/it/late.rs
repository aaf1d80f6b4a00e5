//! Answers of a store that come late, and what else happens between two servers that are asked at the same moment.

use std::sync::Arc;

use roundsman_protocol::{Namespace, Registration, Timestamp};
use roundsman_registry::{Change, Edit, Health, Key, Known, Limits, Record, Registry, Ruling, Tombstone, Tombstones};

fn key() -> Key {
    Key { namespace: Namespace::default(), id: "a".parse().unwrap() }
}

fn registration(port: u16, tag: &str) -> Registration {
    let mut registration = Registration::new("s".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
    registration.id = Some(key().id);
    registration.tags = vec![tag.into()];
    registration
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn with_one() -> (Registry, Arc<Record>) {
    let registry = Registry::new(1);
    let mut draft = registry.draft(Limits::default());
    draft.register(&key().namespace, Arc::new(registration(1, "first")), at(1_000)).unwrap();
    let (edits, _) = draft.finish(at(1_000));
    registry.apply(&edits);
    let record = registry.find(&key()).unwrap();
    (registry, record)
}

#[test]
fn a_removal_that_is_acknowledged_late_leaves_what_registered_elsewhere_since() {
    let (registry, _) = with_one();
    let mut draft = registry.draft(Limits::default());
    draft.deregister(key(), at(2_000)).unwrap();
    let (edits, changes) = draft.finish(at(2_000));
    let Change::Removed { version, .. } = changes[0] else { panic!() };
    // The store took it; another server heard of it, took a registration, and that is heard of before our answer is.
    let anew = Arc::new(Record::registered(&key(), &registration(2, "anew"), version + 1, at(2_001)));
    registry.apply(&[Edit::Adopt { record: Arc::clone(&anew), seen_later: false }]);
    registry.apply(&edits);
    assert_eq!(registry.find(&key()), Some(anew), "a registration that the store holds and a client was told of");
}

#[test]
fn an_update_that_is_acknowledged_late_leaves_a_later_one_from_elsewhere() {
    let (registry, _) = with_one();
    let mut draft = registry.draft(Limits::default());
    draft.register(&key().namespace, Arc::new(registration(1, "ours")), at(2_000)).unwrap();
    let (edits, changes) = draft.finish(at(2_000));
    let ours = changes[0].record();
    let theirs = Arc::new(ours.updated(&registration(1, "theirs"), ours.asked.version + 1));
    registry.apply(&[Edit::Adopt { record: Arc::clone(&theirs), seen_later: false }]);
    registry.apply(&edits);
    assert_eq!(registry.find(&key()).map(|record| record.asked.version), Some(theirs.asked.version));
}

#[test]
fn an_update_during_which_an_eviction_is_seen_is_of_the_same_life_here_and_in_the_store() {
    let (registry, first) = with_one();
    let mut draft = registry.draft(Limits::default());
    draft.register(&key().namespace, Arc::new(registration(1, "updated")), at(2_000)).unwrap();
    let (edits, changes) = draft.finish(at(2_000));
    let stored = Arc::clone(changes[0].record());
    let (incarnation, reason, by) = (first.asked.incarnation, "503".into(), "here".into());
    let observe = Edit::Observe { key: key(), incarnation, health: Health::Evicted, reason, by, at: at(2_001) };
    registry.apply(&[observe]);
    registry.apply(&edits);
    let here = registry.find(&key()).unwrap();
    // What is observed from now on is written to this life.
    let ruling = Change::Observed(Arc::clone(&here)).ruling(Some(Known::from(&*stored)), 0, || false);
    assert_eq!((here.asked, ruling != Ruling::Leave), (stored.asked, true), "observations are left out by the store");
}

#[test]
fn two_requests_of_the_same_millisecond_on_two_servers_are_a_conflict() {
    let (_, before) = with_one();
    let update = |tag: &str| Arc::new(before.updated(&registration(1, tag), 2_000));
    let (first, second) = (update("one"), update("other"));
    let change = Change::Asked { record: second, expected: before.asked.version };
    assert_eq!(
        change.ruling(Some(Known::from(&*first)), 0, || first.asks_the_same(change.record())),
        Ruling::Conflict,
        "the first one was acknowledged"
    );
}

#[test]
fn a_tombstone_without_a_version_takes_no_room_for_ever() {
    let mut tombstones = Tombstones::default();
    for n in 0..1_000 {
        let key = Key { namespace: Namespace::default(), id: format!("a-{n}").parse().unwrap() };
        tombstones.add(Tombstone { key, version: 0 }, at(10_000_000));
    }
    assert_eq!(tombstones.len(), 0);
}

#[test]
fn what_is_forgotten_of_an_old_registration_stays_gone_for_an_hour() {
    let registered = at(1_000);
    let now = registered.plus(Tombstones::KEPT * 2);
    let record = Arc::new(Record::registered(&key(), &registration(1, ""), registered.as_millis(), registered));
    let mut tombstones = Tombstones::default();
    // As the writer does it: with a version of now.
    let version = Registry::new(1).next_version(now);
    tombstones.add(Change::Forgotten { record, version }.tombstone().unwrap(), now);
    assert_eq!(tombstones.version(&key()), version);
}
