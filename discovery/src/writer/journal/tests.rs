use roundsman_protocol::Registration;
use roundsman_registry::{Limits, Registry};

use super::*;

const NOW: Timestamp = Timestamp::MAX;

fn registration(id: &str, port: u16) -> Arc<Registration> {
    let address = format!("10.0.0.1:{port}").parse().unwrap();
    let known = Registration::new("product".parse().unwrap(), address);
    Arc::new(Registration { id: Some(id.parse().unwrap()), ..known })
}

fn key(id: &str) -> Key {
    Key { namespace: Namespace::default(), id: id.parse().unwrap() }
}

/// Plans on the registry, carries it out, and tells what the history will say.
fn told(registry: &Registry, plan: impl FnOnce(&mut roundsman_registry::Draft<'_>)) -> Vec<(EventKind, String)> {
    let mut draft = registry.draft(Limits::default());
    plan(&mut draft);
    let (edits, changes) = draft.finish(NOW);
    let who = |_: &Key| Some(Who { session: Some("7".into()), ..Who::default() });
    let events = Journal::new("server-1").planned(&edits, &changes, NOW, who);
    registry.apply(&edits);
    let known = |event: &Event| event.who.is_some() && &*event.server == "server-1" && event.at == NOW;
    assert!(events.iter().all(known), "{events:?}");
    events.into_iter().map(|event| (event.kind, event.instance.unwrap().to_string())).collect()
}

#[test]
fn what_clients_ask_for_is_told() {
    let (registry, ns) = (Registry::new(1), Namespace::default());
    let register = |id, port| told(&registry, |draft| drop(draft.register(&ns, registration(id, port), NOW).unwrap()));
    let one = |kind, id: &str| vec![(kind, id.to_owned())];
    assert_eq!(register("a", 1), one(EventKind::Registered, "a"));
    assert_eq!(register("a", 1), [], "nothing has changed");
    let update = Arc::new(Registration { weight: 7, ..Registration::clone(&registration("a", 1)) });
    let updated = told(&registry, |draft| drop(draft.register(&ns, update, NOW).unwrap()));
    assert_eq!(updated, one(EventKind::Updated, "a"));
    assert_eq!(register("a", 2), one(EventKind::Registered, "a"), "at another address: another life");
    let ghost = register("b", 2);
    assert_eq!(ghost, [(EventKind::Replaced, "a".to_owned()), (EventKind::Registered, "b".to_owned())]);
    let drained = told(&registry, |draft| draft.drain(key("b"), true, NOW).unwrap());
    assert_eq!(drained, one(EventKind::Drained, "b"));
    let undrained = told(&registry, |draft| draft.drain(key("b"), false, NOW).unwrap());
    assert_eq!(undrained, one(EventKind::Undrained, "b"));
    let gone = told(&registry, |draft| draft.deregister(key("b"), NOW).unwrap());
    assert_eq!(gone, one(EventKind::Deregistered, "b"));
}

#[test]
fn what_the_rounds_see_is_told_with_its_evidence() {
    let (registry, ns) = (Registry::new(1), Namespace::default());
    told(&registry, |draft| drop(draft.register(&ns, registration("a", 1), NOW).unwrap()));
    let mut journal = Journal::new("server-1");
    let healths =
        [Health::Passing, Health::Passing, Health::Suspect, Health::Evicted, Health::Passing, Health::Evicted];
    for (n, health) in healths.into_iter().enumerate() {
        let incarnation = registry.find(&key("a")).unwrap().asked.incarnation;
        let (reason, at) = (format!("visit {n}").into(), Timestamp::from_millis(n as u64));
        journal.observed(
            &registry.apply(&[Edit::Observe { key: key("a"), incarnation, health, reason, by: "server-1".into(), at }]),
            NOW,
        );
    }
    let incarnation = registry.find(&key("a")).unwrap().asked.incarnation;
    let forgotten = Edit::Forget { key: key("a"), incarnation, reason: "probation is over".into() };
    journal.observed(&registry.apply(&[forgotten]), NOW);
    let told = journal.take(Instant::now(), |_| false).into_iter().map(|event| (event.kind, event.reason.to_string()));
    let expected = [
        (EventKind::Flip, "visit 0"),
        (EventKind::Flip, "visit 2"),
        (EventKind::Evicted, "visit 3"),
        (EventKind::Reinstated, "visit 4"),
        (EventKind::Evicted, "visit 5"),
        (EventKind::Forgotten, "probation is over"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected.map(|(kind, reason)| (kind, reason.to_owned())));
    assert!(journal.is_empty());
}

#[test]
fn while_the_store_is_gone_the_oldest_are_dropped_and_a_mark_says_so() {
    let mut journal = Journal::new("server-1");
    let record = |ns: &str| {
        let key = Key { namespace: ns.parse().unwrap(), id: "a".parse().unwrap() };
        Record::registered(&key, &registration("a", 1), 0, NOW)
    };
    let at = |n: usize| Timestamp::from_millis(n as u64);
    let (shop, default) = (record("shop"), record("default"));
    let flips = (0..MOST + 7)
        .map(|n| event(if n < 3 { &shop } else { &default }, EventKind::Flip, "".into(), at(n), &journal.server));
    let flips: Vec<_> = flips.collect();
    journal.put_back(flips.clone());
    // What cannot be written now stays, and does not stand in the way.
    let first = journal.take(Instant::now(), |namespace| namespace.as_str() == "shop");
    assert_eq!(first.len(), AT_A_TIME);
    assert!(first[0].kind == EventKind::Cut && first[0].reason.starts_with("4 events"), "{:?}", first[0]);
    assert_eq!((first[0].at, &first[1]), (at(6), &flips[7]));
    // What the mark says is not lost when the store does not take it.
    journal.put_back(first);
    let first = journal.take(Instant::now(), |namespace| namespace.as_str() == "shop");
    assert!(first[0].kind == EventKind::Cut && first[0].reason.starts_with("4 events"), "{:?}", first[0]);
    journal.put_back(first[1..].to_vec());
    let mut rest = journal.take(Instant::now(), |_| false);
    assert!(rest[0].kind == EventKind::Cut && rest[0].namespace.as_ref().unwrap().as_str() == "shop");
    rest.remove(0);
    while !journal.is_empty() {
        rest.extend(journal.take(Instant::now(), |_| false));
    }
    assert_eq!(rest, flips[7..]);
    journal.untold(rest[..1].to_vec(), Instant::now());
    assert_eq!(journal.take(Instant::now(), |_| false), [], "the store is left in peace");
    let other = event(&shop, EventKind::Flip, "".into(), at(1), &journal.server);
    journal.put_back(vec![other.clone()]);
    assert_eq!(journal.take(Instant::now(), |_| false), [other], "as far as that namespace goes");
    assert_eq!(journal.take(Instant::now() + REST, |_| false), flips[7..8]);
    journal.untold(rest[1..2].to_vec(), Instant::now());
    journal.try_again();
    assert_eq!(journal.take(Instant::now(), |_| false), flips[8..9], "there is room again");
}
