//! Pages and digests of snapshots.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use roundsman_protocol::{
    Digest, Instance, Namespace, Query, Registration, Scope, ServiceName, Timestamp, digest::ALL_PARTS,
};
use roundsman_registry::{Edit, Health, Key, Limits, Look, Registry, Snapshot, snapshot::Place};

fn namespace() -> Namespace {
    "default".parse().unwrap()
}

fn service(n: u16) -> ServiceName {
    format!("s{n:02}").parse().unwrap()
}

/// A registry with so many instances in each of some services: some are tagged, some handed out, some on probation.
fn registry(services: &[u16]) -> Registry {
    let registry = Registry::new(1);
    let mut draft = registry.draft(Limits::default());
    for (n, count) in services.iter().enumerate() {
        for port in 1..=*count {
            let mut registration = Registration::new(service(n as u16), format!("10.0.0.1:{port}").parse().unwrap());
            registration.tags = if port % 3 == 0 { vec!["blue".into()] } else { Vec::new() };
            draft.register(&namespace(), Arc::new(registration), Timestamp::default()).unwrap();
        }
    }
    registry.apply(&draft.finish(Timestamp::default()).0);
    let health = |n: usize| match n % 5 {
        0 => Health::Starting,
        1 => Health::Evicted,
        _ => Health::Passing,
    };
    let observe = |(n, record): (usize, Arc<roundsman_registry::Record>)| Edit::Observe {
        key: record.key(),
        incarnation: record.asked.incarnation,
        by: "here".into(),
        health: health(n),
        reason: "seen".into(),
        at: Timestamp::from_millis(5),
    };
    let edits: Vec<Edit> = registry.records().into_iter().enumerate().map(observe).collect();
    registry.apply(&edits);
    registry
}

fn queries() -> impl Strategy<Value = Query> {
    let scope = prop_oneof![Just(Scope::Available), Just(Scope::Registered), Just(Scope::All)];
    let services = proptest::collection::btree_set(0..5_u16, 0..4);
    (scope, services, proptest::bool::weighted(0.3), any::<bool>()).prop_map(|(scope, services, blue, history)| Query {
        services: services.into_iter().map(service).collect(),
        scope,
        tags: if blue { vec!["blue".into()] } else { Vec::new() },
        history,
        ..Query::default()
    })
}

fn all_pages(snapshot: &Snapshot, query: &Query, parts: u64, max_bytes: usize) -> Vec<Vec<Arc<Instance>>> {
    let (mut pages, mut after): (Vec<_>, Option<Place>) = (Vec::new(), None);
    loop {
        let (page, next) = snapshot.page(query, parts, after.as_ref(), max_bytes);
        pages.push(page);
        if next.is_none() {
            return pages;
        }
        after = next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn pages_together_are_everything_and_digests_tell_what_differs(
        services in proptest::collection::vec(prop_oneof![0..40_u16, 500..900_u16], 0..5),
        query in queries(), max_bytes in prop_oneof![Just(0_usize), 500..200_000_usize], parts in any::<u64>(),
        changed in proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let registry = registry(&services);
        let snapshot = registry.snapshot(&namespace(), &query);
        let everything: Vec<_> = snapshot.matching(&query).collect();
        let matching = registry.records().into_iter().filter(|record| query.matches(&record.instance)).count();
        prop_assert_eq!(everything.len(), matching);
        prop_assert!(everything.windows(2).all(|two| (&two[0].name, &two[0].id) < (&two[1].name, &two[1].id)));

        let pages = all_pages(&snapshot, &query, ALL_PARTS, max_bytes);
        prop_assert!(pages.len() == 1 || pages.iter().all(|page| !page.is_empty()));
        let bytes = |page: &Vec<Arc<Instance>>| page.iter().map(|instance| instance.bytes()).sum::<usize>();
        prop_assert!(pages.iter().all(|page| page.len() <= 1 || bytes(page) <= max_bytes));
        prop_assert_eq!(&pages.concat(), &everything);

        let some: Vec<_> = everything.iter().filter(|i| i.id.part_mask() & parts != 0).cloned().collect();
        prop_assert_eq!(all_pages(&snapshot, &query, parts, max_bytes).concat(), some);

        let digest = snapshot.digest(&query);
        prop_assert_eq!(&digest, &Digest::of(everything.iter().map(|instance| &**instance)));
        prop_assert_eq!(snapshot.parts_that_differ(&query, &digest), 0);
        prop_assert_eq!(snapshot.parts_that_differ(&query, &Digest::default()) != 0, !everything.is_empty());

        // Some instances change: a watcher that knew the rest gets the parts in which they are.
        if !everything.is_empty() {
            let records = registry.records();
            let chosen: BTreeSet<_> = changed.iter().map(|index| index.get(&everything).id.clone()).collect();
            let edits: Vec<Edit> = records.iter().filter(|record| chosen.contains(&record.instance.id)).map(|record| {
                Edit::Remove { key: record.key(), reason: "".into(), version: u64::MAX }
            }).collect();
            registry.apply(&edits);
            let now = registry.snapshot(&namespace(), &query);
            let expected = chosen.iter().fold(0, |mask, id| mask | id.part_mask());
            prop_assert_eq!(now.parts_that_differ(&query, &digest), expected);
            prop_assert_eq!(&snapshot.matching(&query).collect::<Vec<_>>(), &everything, "a snapshot stays as it is");
        }
    }
}

/// Registers under one of a few ids, in one of a few services; takes out; drains.
fn edit(which: u16, at: u64) -> Edit {
    let id = format!("i-{}", which % 40).parse().unwrap();
    let key = Key { namespace: namespace(), id };
    let (at, how) = (Timestamp::from_millis(at), which / 40 % 6);
    match how {
        0 => Edit::Remove { key, reason: "".into(), version: u64::MAX },
        1 | 2 => Edit::Drain { key, on: how == 1, operator: false, version: at.as_millis(), at },
        _ => {
            let address = format!("10.0.{how}.{}:1", which % 40 + 1).parse().unwrap();
            let registration = Registration {
                check: roundsman_protocol::Check::none(),
                tags: if which.is_multiple_of(7) { vec!["blue".into()] } else { Vec::new() },
                ..Registration::new(service(how % 4), address)
            };
            Edit::Register { key, registration: Arc::new(registration), version: at.as_millis(), at }
        }
    }
}

proptest! {
    #[test]
    fn an_earlier_moment_is_made_again_by_undoing_what_happened_since(
        first in proptest::collection::vec(any::<u16>(), 0..80),
        then in proptest::collection::vec(any::<u16>(), 0..80),
        later in proptest::collection::vec(any::<u16>(), 0..10),
        query in queries(),
    ) {
        let registry = registry(&[600, 3]);
        let apply = |edits: &[u16], from: u64| {
            let edits: Vec<Edit> = edits.iter().zip(from..).map(|(which, at)| edit(*which, at)).collect();
            registry.apply(&edits);
        };
        apply(&first, 100);
        let begun = registry.snapshot(&namespace(), &query);
        let digest = begun.digest(&query);
        apply(&then, 1_000);
        let now = registry.snapshot(&namespace(), &query);
        // What happens between the two looks is undone as well.
        apply(&later, 2_000);
        let Look::Changes(changes) = registry.look(&namespace(), &query, Some(begun.cursor())) else {
            panic!("the log reaches back");
        };
        let again = now.before(&changes, begun.cursor());
        prop_assert_eq!(again.cursor(), begun.cursor());
        prop_assert!(again.matching(&query).eq(begun.matching(&query)));
        prop_assert_eq!((again.len(), again.bytes()), (begun.len(), begun.bytes()));
        prop_assert_eq!(again.digest(&query), digest.clone());
        prop_assert_ne!(again.adds_up_to(&query, &digest), Some(false));
    }
}

#[test]
fn a_page_begins_after_a_place_even_if_its_instance_is_gone() {
    let registry = registry(&[10, 10]);
    let query = Query { scope: Scope::All, ..Query::default() };
    let snapshot = registry.snapshot(&namespace(), &query);
    let (first, next) = snapshot.page(&query, ALL_PARTS, None, 0);
    let (name, id) = next.unwrap();
    assert_eq!((first.len(), &first[0].id), (1, &id));
    registry.apply(&[Edit::Remove { key: registry.records()[0].key(), reason: "".into(), version: u64::MAX }]);
    let later = registry.snapshot(&namespace(), &query);
    let (second, _) = later.page(&query, ALL_PARTS, Some(&(name, id)), 0);
    assert_eq!(second[0].id, snapshot.matching(&query).nth(1).unwrap().id);
    let beyond = (service(7), second[0].id.clone());
    assert_eq!(later.page(&query, ALL_PARTS, Some(&beyond), 1 << 20), (Vec::new(), None));
    let (rest, next) = later.page(&query, ALL_PARTS, Some(&(service(0), "z".parse().unwrap())), 1 << 20);
    assert_eq!((rest.len(), next), (10, None), "the other service");
    assert_eq!((snapshot.len(), later.len()), (20, 19));
    assert!(snapshot.bytes() > later.bytes());
}
