//! What things cost as they grow. Prints figures and judges none: run with `--release -- --ignored --nocapture costs`.

use std::{hint::black_box, sync::Arc, time::Duration};

use roundsman_protocol::{Cursor, Namespace, Query, Registration, Scope, Timestamp};
use roundsman_registry::{Edit, Health, Key, Record, Registry};
use tokio::time::Instant;

fn record(space: &str, service: &str, n: u32) -> Record {
    let address = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255).parse().unwrap();
    let mut registration = Registration::new(service.parse().unwrap(), address);
    registration.zone = Some("eu-1".into());
    let key = Key { namespace: space.parse().unwrap(), id: format!("{service}-{n:06}").parse().unwrap() };
    let record = Record::registered(&key, &registration, 0, Timestamp::default());
    record.seen(Health::Passing, "GET /health: 200".into(), "".into(), Timestamp::default())
}

fn registry(services: u32, each: u32) -> Registry {
    let registry = Registry::new(1);
    let all = (0..services * each).map(|n| record("default", &format!("s{}", n % services), n));
    registry.load(all.collect());
    registry
}

fn observe(record: &Record) -> Edit {
    let health = if record.observed.health == Health::Passing { Health::Suspect } else { Health::Passing };
    let (key, incarnation) = (record.key(), record.asked.incarnation);
    Edit::Observe {
        key,
        incarnation,
        health,
        reason: "GET /health: 200".into(),
        by: "here".into(),
        at: Timestamp::default(),
    }
}

/// The median and the 99th percentile, in nanoseconds.
fn each(times: usize, mut f: impl FnMut(usize)) -> (u128, u128) {
    let mut spans: Vec<Duration> = (0..times)
        .map(|n| {
            let began = Instant::now();
            f(n);
            began.elapsed()
        })
        .collect();
    spans.sort_unstable();
    (spans[times / 2].as_nanos(), spans[times * 99 / 100].as_nanos())
}

/// The resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[test]
#[ignore = "measures"]
fn costs_of_memory() {
    for (services, many) in [(10_000, 10), (1, 100_000), (1_000, 100)] {
        let before = resident();
        let registry = registry(services, many);
        println!("{services} services of {many}: {} KiB above {before}", resident() - before);
        drop(registry);
    }
}

#[test]
#[ignore = "measures"]
fn costs_of_a_change_and_of_a_lookup() {
    let (space, service): (Namespace, _) = ("default".parse().unwrap(), "s0".parse().unwrap());
    for size in [10, 100, 1_000, 10_000, 50_000, 100_000] {
        let registry = registry(1, size);
        let records = registry.records();
        let mut chosen = records.iter().cycle().step_by(7_919);
        let mut flip = || {
            let key = chosen.next().unwrap().key();
            observe(&registry.find(&key).unwrap())
        };
        let mut spans: Vec<Duration> = (0..10_000)
            .map(|_| {
                let edit = [flip()];
                let began = Instant::now();
                drop(black_box(registry.apply(&edit)));
                began.elapsed()
            })
            .collect();
        spans.sort_unstable();
        let changed = (spans[5_000], spans[9_900]);
        let edits: Vec<Edit> = (0..5_000).map(|_| flip()).collect();
        let began = Instant::now();
        registry.apply(&edits);
        let batch = began.elapsed();
        let began = Instant::now();
        (0..1_000_000).for_each(|_| drop(black_box(registry.get(&space, &service))));
        let get = began.elapsed() / 1_000_000;
        println!("{size}: change {changed:?} (median, p99), 5,000 at once {batch:?}, get {get:?}");
    }
}

#[test]
#[ignore = "measures"]
fn costs_of_namespaces_and_services() {
    for many in [1_000_u32, 10_000, 100_000] {
        let add = |registry: &Registry, record: Record| {
            registry.apply(&[Edit::Adopt { record: Arc::new(record), seen_later: false }]);
        };
        let registry = Registry::new(1);
        let began = Instant::now();
        (0..many).for_each(|n| add(&registry, record(&format!("n{n}"), "a", n)));
        let namespaces = began.elapsed();
        let registry = Registry::new(1);
        let began = Instant::now();
        (0..many).for_each(|n| add(&registry, record("default", &format!("s{n}"), n)));
        let services = began.elapsed();
        let began = Instant::now();
        drop(black_box(registry.snapshot(&"default".parse().unwrap(), &Query::default())));
        println!("{many}: namespaces {namespaces:?}, services {services:?}, a snapshot of these {:?}", began.elapsed());
    }
}

#[test]
#[ignore = "measures"]
fn costs_of_a_watch_over_a_thousand_services() {
    let registry = registry(2_048, 10);
    let space: Namespace = "default".parse().unwrap();
    let services = (0..1_024).map(|n| format!("s{n}").parse().unwrap()).collect();
    let query = Query { services, scope: Scope::All, ..Query::default() }.canonical();
    let records = registry.records();
    let of = |name: &str| records.iter().find(|record| record.instance.name.as_str() == name).unwrap();
    let (inside, outside) = (of("s5"), of("s2000"));
    let change = |record: &Record, times| {
        (0..times).for_each(|_| drop(registry.apply(&[observe(&registry.find(&record.key()).unwrap())])));
    };
    let cursor: Cursor = registry.look(&space, &query, None).update(&query).cursor;
    change(outside, 4_000);
    let look = || drop(black_box(registry.look(&space, &query, Some(cursor)).update(&query)));
    println!("4,000 changes elsewhere: {:?} ns", each(500, |_| look()));
    change(inside, 50);
    println!("and 50 in one of them: {:?} ns", each(500, |_| look()));
    let everything = Query { scope: Scope::All, ..Query::default() };
    let snapshot = || registry.snapshot(&space, &everything);
    println!("a snapshot of everything: {:?} ns", each(500, |_| drop(black_box(snapshot()))));
    println!("its digest: {:?} ns", each(500, |_| drop(black_box(snapshot().digest(&everything)))));
}
