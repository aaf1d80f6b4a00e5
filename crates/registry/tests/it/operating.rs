//! What operators ask for, and what an instance that was replaced is told.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{
    Check, DiscoveryError, InstanceId, InstanceStatus, Patch, Registered, Registration, Timestamp, instance::Outcome,
};
use roundsman_registry::{Change, Draft, Edit, Health, Key, Limits, Registry};

const NOW: Timestamp = Timestamp::MAX;

fn key(id: &str) -> Key {
    Key { namespace: "default".parse().unwrap(), id: id.parse().unwrap() }
}

fn id(id: &str) -> InstanceId {
    id.parse().unwrap()
}

fn registration(id: &str, port: u16) -> Registration {
    let new = Registration::new("product".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
    Registration { id: Some(id.parse().unwrap()), ..new }
}

/// Plans one thing, carries it out, and tells what is committed.
fn ask<T>(registry: &Registry, plan: impl FnOnce(&mut Draft<'_>) -> T) -> (T, Vec<Change>) {
    let mut draft = registry.draft(Limits::default());
    let answer = plan(&mut draft);
    let (edits, changes) = draft.finish(NOW);
    registry.apply(&edits);
    (answer, changes)
}

fn register(registry: &Registry, new: Registration) -> Result<Registered, DiscoveryError> {
    ask(registry, |draft| draft.register(&key("x").namespace, Arc::new(new), Timestamp::from_millis(1_000))).0
}

fn observe(registry: &Registry, id: &str, health: Health) {
    let incarnation = registry.find(&key(id)).unwrap().asked.incarnation;
    let (reason, by) = ("".into(), "here".into());
    registry.apply(&[Edit::Observe { key: key(id), incarnation, health, reason, by, at: NOW }]);
}

fn status(registry: &Registry, id: &str) -> Option<InstanceStatus> {
    registry.find(&key(id)).map(|record| record.status())
}

#[test]
fn the_later_one_wins_once_and_the_earlier_is_told_by_whom() {
    let registry = Registry::new(1);
    let again = |id| Registration { again: true, ..registration(id, 1) };
    assert_eq!(register(&registry, registration("a", 1)).unwrap().replaced, []);
    assert_eq!(register(&registry, registration("b", 1)).unwrap().replaced, [id("a")]);
    let replaced = DiscoveryError::Replaced { id: id("a"), by: id("b") };
    for health in [Health::Starting, Health::Passing, Health::Suspect] {
        observe(&registry, "b", health);
        assert_eq!(register(&registry, again("a")), Err(replaced.clone()), "{health:?}");
    }
    assert_eq!(register(&registry, again("b")).unwrap().outcome, Outcome::Unchanged);
    assert_eq!(status(&registry, "a"), None);
    // Once the other is gone, be it only evicted, it may come back.
    observe(&registry, "b", Health::Evicted);
    assert_eq!(register(&registry, again("a")).unwrap().replaced, [id("b")]);
    // Whoever starts anew takes the address in any case: an instance that restarted leaves no ghost.
    assert_eq!(register(&registry, registration("c", 1)).unwrap().replaced, [id("a")]);
}

#[test]
fn a_blocked_id_is_kept_out_until_it_is_over_or_lifted() {
    let registry = Registry::new(1);
    register(&registry, registration("a", 1)).unwrap();
    let (now, until) = (Timestamp::from_millis(2_000), Timestamp::from_millis(3_602_000));
    let block = |until| ask(&registry, |draft| draft.block(key("a"), until, &"order".into(), now));
    let (blocked, changes) = block(until);
    assert_eq!((blocked, changes.len()), (Ok(()), 1));
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Evicted));
    let refused = register(&registry, registration("a", 1)).unwrap_err();
    assert_eq!(refused.to_string(), "instance `a` is blocked until 1970-01-01T01:00:02Z by order");
    let at = |millis| {
        let new = Arc::new(registration("a", 1));
        let mut draft = registry.draft(Limits::default());
        draft.register(&key("a").namespace, new, Timestamp::from_millis(millis)).map(|registered| registered.outcome)
    };
    assert!(matches!(at(3_601_999), Err(DiscoveryError::Blocked { .. })));
    assert_eq!(at(3_602_000), Ok(Outcome::Created), "also where it is not forgotten yet");
    // Nothing else gets around it, and its owner's farewell does not lift it.
    let asked = |plan: &dyn Fn(&mut Draft<'_>) -> Result<(), DiscoveryError>| ask(&registry, |draft| plan(draft)).0;
    assert!(matches!(asked(&|draft| draft.drain(key("a"), true, now)), Err(DiscoveryError::Blocked { .. })));
    assert!(matches!(asked(&|draft| draft.dismiss(key("a"), now)), Err(DiscoveryError::Blocked { .. })));
    assert!(matches!(asked(&|draft| draft.deregister(key("a"), now)), Err(DiscoveryError::NotRegistered { .. })));
    let patch = Patch { weight: Some(5), ..Patch::default() };
    assert!(matches!(
        asked(&|draft| draft.update(key("a"), &patch, now).map(|_| ())),
        Err(DiscoveryError::Blocked { .. })
    ));
    // It stands in nobody's way.
    assert_eq!(register(&registry, registration("b", 1)).unwrap().replaced, []);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Evicted));
    // What visits find of it, as those of a server that knows no blocks would, does not bring it back.
    observe(&registry, "a", Health::Passing);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Evicted));
    let (lifted, changes) = block(now);
    assert_eq!(lifted, Ok(()));
    assert!(matches!(changes[..], [Change::Removed { .. }]), "{changes:?}");
    assert_eq!(status(&registry, "b"), Some(InstanceStatus::Starting), "whoever is there stays");
    assert_eq!(register(&registry, registration("a", 2)).unwrap().outcome, Outcome::Created);
}

#[test]
fn only_what_is_known_can_be_blocked() {
    let registry = Registry::new(1);
    let (refused, changes) = ask(&registry, |draft| draft.block(key("a"), NOW, &"order".into(), Timestamp::default()));
    assert_eq!((refused, changes.len()), (Err(DiscoveryError::NotRegistered { id: id("a") }), 0));
}

#[test]
fn an_operators_drain_outlasts_whatever_its_owner_does() {
    let registry = Registry::new(1);
    let hold = |on| ask(&registry, |draft| draft.hold(key("a"), on, NOW)).0.unwrap();
    let drain = |on| ask(&registry, |draft| draft.drain(key("a"), on, NOW)).0.unwrap();
    register(&registry, registration("a", 1)).unwrap();
    observe(&registry, "a", Health::Passing);
    hold(true);
    drain(false);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Draining), "its owner cannot end it");
    register(&registry, registration("a", 2)).unwrap();
    observe(&registry, "a", Health::Passing);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Draining), "at another address, too");
    hold(false);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Passing));
    drain(true);
    register(&registry, registration("a", 3)).unwrap();
    observe(&registry, "a", Health::Passing);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Passing), "an owner's drain is of one process");
    drain(true);
    hold(false);
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Passing), "an operator ends any drain");
}

#[test]
fn two_updates_at_once_both_hold() {
    let registry = Registry::new(1);
    register(&registry, registration("a", 1)).unwrap();
    let mut draft = registry.draft(Limits::default());
    let weight = Patch { weight: Some(50), ..Patch::default() };
    let zone = Patch { zone: Some("z".into()), ..Patch::default() };
    let first = draft.update(key("a"), &weight, NOW).unwrap();
    let second = draft.update(key("a"), &zone, NOW).unwrap();
    assert_eq!((first.after.weight, second.before.weight, second.after.zone.as_deref()), (50, 50, Some("z")));
    assert_eq!(draft.update(key("a"), &zone, NOW).unwrap().outcome, Outcome::Unchanged);
    let (edits, changes) = draft.finish(NOW);
    registry.apply(&edits);
    let record = registry.find(&key("a")).unwrap();
    assert_eq!((record.instance.weight, record.instance.zone.as_deref(), changes.len()), (50, Some("z"), 1));
}

#[test]
fn an_update_brings_nobody_back_and_breaks_no_rule() {
    let registry = Registry::new(1);
    register(&registry, registration("a", 1)).unwrap();
    observe(&registry, "a", Health::Evicted);
    let update = |patch: Patch| ask(&registry, |draft| draft.update(key("a"), &patch, NOW)).0;
    let longer = Some(Duration::from_secs(3_600));
    update(Patch { forget_after: longer, ..Patch::default() }).unwrap();
    let record = registry.find(&key("a")).unwrap();
    assert_eq!((record.status(), record.forget_after()), (InstanceStatus::Evicted, longer));
    let refused = update(Patch { weight: Some(0), ..Patch::default() }).unwrap_err();
    assert!(matches!(refused, DiscoveryError::Invalid(invalid) if invalid.field == "weight"));
    update(Patch { path: Some("/alive".into()), ..Patch::default() }).unwrap();
    assert_eq!(status(&registry, "a"), Some(InstanceStatus::Starting), "visited in another way, it begins anew");
    let gone = ask(&registry, |draft| draft.update(key("b"), &Patch::default(), NOW)).0;
    assert!(matches!(gone, Err(DiscoveryError::NotRegistered { .. })));
}

/// While an update is on its way to the store, the rounds evict the instance.
#[test]
fn an_update_and_what_is_seen_meanwhile_leave_each_other_alone() {
    let registry = Registry::new(1);
    register(&registry, registration("a", 1)).unwrap();
    let mut draft = registry.draft(Limits::default());
    draft.update(key("a"), &Patch { weight: Some(7), ..Patch::default() }, NOW).unwrap();
    let (edits, _) = draft.finish(NOW);
    observe(&registry, "a", Health::Evicted);
    registry.apply(&edits);
    let record = registry.find(&key("a")).unwrap();
    assert_eq!((record.status(), record.instance.weight), (InstanceStatus::Evicted, 7));
}

#[test]
fn updates_of_one_batch_share_the_room_that_there_is() {
    let registry = Registry::new(1);
    for port in 1..=10 {
        register(&registry, registration(&format!("a-{port}"), port)).unwrap();
    }
    let limits = Limits { max_bytes: registry.bytes() + 35 * 1_024, ..Limits::default() };
    let mut draft = registry.draft(limits);
    let patch = Patch { meta: [("k", "v".repeat(10 * 1_024))].into_iter().collect(), ..Patch::default() };
    let taken = (1..=10).filter(|port| draft.update(key(&format!("a-{port}")), &patch, NOW).is_ok()).count();
    assert!((1..=3).contains(&taken), "{taken} updates of 10 KiB in 35 KiB");
}

#[test]
fn an_update_that_takes_no_room_needs_none() {
    let registry = Registry::new(1);
    register(&registry, Registration { tags: vec!["blue".into()], ..registration("a", 1) }).unwrap();
    let limits = Limits { max_bytes: registry.bytes(), ..Limits::default() };
    let patch = Patch { weight: Some(5), untag: vec!["blue".into()], ..Patch::default() };
    let patched = registry.draft(limits).update(key("a"), &patch, NOW);
    assert_eq!(patched.map(|patched| patched.outcome), Ok(Outcome::Updated));
}

#[test]
fn whoever_is_visited_in_another_way_begins_anew_and_says_so() {
    let registry = Registry::new(1);
    register(&registry, Registration { check: Check::tcp(), ..registration("a", 1) }).unwrap();
    let patch = Patch { interval: Some(Duration::from_secs(9)), ..Patch::default() };
    ask(&registry, |draft| drop(draft.update(key("a"), &patch, NOW).unwrap()));
    let known = registry.find(&key("a")).unwrap();
    assert_eq!(
        (known.status(), &*known.instance.reason),
        (InstanceStatus::Starting, "visited in another way from now on")
    );
}
