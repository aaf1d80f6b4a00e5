//! Very many namespaces, services and instances: what is counted stays right, and nothing looks at all of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use roundsman_protocol::{Check, DiscoveryError, Instance, Namespace, Query, Registration, Scope, Timestamp};
use roundsman_registry::{Edit, Health, Key, Limits, Record, Registry};

fn record(space: &str, service: &str, n: u32) -> Record {
    let address = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255).parse().unwrap();
    let registration = Registration::new(service.parse().unwrap(), address);
    let key = Key { namespace: space.parse().unwrap(), id: format!("i-{n:06}").parse().unwrap() };
    Record::registered(&key, &registration, 0, Timestamp::default())
}

fn adopt(registry: &Registry, record: Record) {
    registry.apply(&[Edit::Adopt { record: Arc::new(record), seen_later: false }]);
}

fn remove(registry: &Registry, record: &Record) {
    registry.apply(&[Edit::Remove { key: record.key(), reason: "done".into(), version: u64::MAX }]);
}

#[test]
fn namespaces_come_and_go_one_by_one() {
    const MANY: u32 = 5_000;
    let registry = Registry::new(1);
    let space = |n: u32| format!("n{n}");
    (0..MANY).for_each(|n| adopt(&registry, record(&space(n), "a", n)));
    assert_eq!(registry.overview(None).len(), MANY as usize);
    assert_eq!((registry.len(), registry.records().len()), (MANY as usize, MANY as usize));
    for n in 0..MANY {
        let name: Namespace = space(n).parse().unwrap();
        assert!(matches!(registry.get(&name, &"a".parse().unwrap()), Err(DiscoveryError::NonePassing { .. })), "{n}");
        remove(&registry, &record(&space(n), "a", n));
    }
    assert!(registry.is_empty() && registry.overview(None).is_empty());
    let limits = Limits { max_namespaces: 2, ..Limits::default() };
    let register = |name: &str| {
        let registration = Registration::new("a".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
        let mut draft = registry.draft(limits);
        let planned = draft.register(&name.parse().unwrap(), Arc::new(registration), Timestamp::default());
        registry.apply(&draft.finish(Timestamp::default()).0);
        planned
    };
    register("x").unwrap();
    register("y").unwrap();
    register("x").unwrap();
    assert!(register("z").unwrap_err().to_string().contains("--max-namespaces (2)"));
    let left: Vec<_> = registry.overview(None).into_iter().map(|status| status.namespace.to_string()).collect();
    assert_eq!(left, ["x", "y"]);
}

#[test]
fn services_come_and_go_one_by_one() {
    const MANY: u32 = 5_000;
    let registry = Registry::new(1);
    let (space, service) = ("default".parse().unwrap(), |n: u32| format!("s{n:05}"));
    (0..MANY).for_each(|n| adopt(&registry, record("default", &service(n), n)));
    assert_eq!(registry.services_of(&space), MANY as usize);
    let names: Vec<_> = registry.services(&space).into_iter().map(|service| service.name.to_string()).collect();
    assert!(names.iter().eq((0..MANY).map(service).collect::<Vec<_>>().iter()), "by name");
    for n in (0..MANY).filter(|n| n % 2 == 0) {
        remove(&registry, &record("default", &service(n), n));
    }
    assert_eq!(registry.services_of(&space), MANY as usize / 2);
    for n in 0..MANY {
        assert_eq!(registry.has_service(&space, &service(n).parse().unwrap()), n % 2 == 1);
    }
    let query = Query { scope: Scope::All, ..Query::default() };
    assert_eq!(registry.snapshot(&space, &query).matching(&query).count(), MANY as usize / 2);
}

#[test]
fn a_large_service_is_loaded_at_once_and_takes_batches_of_thousands() {
    const MANY: u32 = 20_000;
    let registry = Registry::new(1);
    let records: Vec<Record> = (0..MANY).map(|n| record("default", "a", n * 7919 % MANY)).collect();
    assert_eq!(registry.load(records).records.len(), MANY as usize);
    let edits: Vec<Edit> = registry
        .records()
        .iter()
        .map(|record| Edit::Observe {
            key: record.key(),
            incarnation: record.asked.incarnation,
            by: "here".into(),
            health: Health::Passing,
            reason: "seen".into(),
            at: Timestamp::default(),
        })
        .collect();
    for batch in edits.chunks(5_000) {
        assert_eq!(registry.apply(batch).len(), 5_000);
    }
    let (space, service) = ("default".parse().unwrap(), "a".parse().unwrap());
    let mut picked: BTreeMap<_, u32> = BTreeMap::new();
    for _ in 0..2 * MANY {
        let record = registry.get(&space, &service).unwrap();
        *picked.entry(record.instance.id.clone()).or_default() += 1;
    }
    assert_eq!((picked.len(), picked.values().all(|times| *times == 2)), (MANY as usize, true));
    let summary = registry.services(&space).remove(0);
    assert_eq!((summary.instances, summary.passing), (MANY, MANY));
    let bytes: usize = registry.records().iter().map(|record| record.bytes()).sum();
    assert_eq!(bytes, registry.bytes());
    assert!(registry.records().iter().all(|record| Instance::fingerprint(&record.instance) == record.fingerprint));
}

/// Services that come and go move the others about.
#[test]
fn a_lookup_never_finds_what_was_replaced_before_it_began() {
    const STEPS: u64 = 4_000;
    let registry = Registry::new(1);
    let (space, service) = ("default".parse().unwrap(), "a".parse().unwrap());
    let at_version = |version: u64| {
        let registration = Registration {
            check: Check::none(),
            ..Registration::new("a".parse().unwrap(), "10.0.0.1:1".parse().unwrap())
        };
        let key = Key { namespace: "default".parse().unwrap(), id: "a".parse().unwrap() };
        Record::registered(&key, &registration, version, Timestamp::default())
    };
    adopt(&registry, at_version(1));
    let (shown, done) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let least = shown.load(Ordering::Acquire);
                    let found = registry.get(&space, &service).unwrap().asked.version;
                    assert!(found >= least, "{found}, when {least} was shown already");
                }
            });
        }
        for version in 2..STEPS {
            let other = record("default", &format!("s{version}"), u32::try_from(version).unwrap());
            adopt(&registry, other.clone());
            adopt(&registry, at_version(version));
            shown.store(version, Ordering::Release);
            if version % 3 == 0 {
                remove(&registry, &other);
            }
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(registry.get(&space, &service).unwrap().asked.version, STEPS - 1);
}
