//! What calls tell of themselves, to a real recorder.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use metrics::set_default_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use roundsman::{CircuitBreaker, Discovery, Policy, Registration, metrics::ALL};

use crate::{
    backend::{Backend, Manner, patient},
    support::{HANG, eventually, instance, nowhere, server, soon},
};

/// Labels and values of each name.
type Told = BTreeMap<String, Vec<(BTreeMap<String, String>, DebugValue)>>;

/// What was told since the last time, counters from their beginning.
fn told(snapshotter: &Snapshotter) -> Told {
    let mut told = Told::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if key.name().starts_with("roundsman_") {
            assert!(unit.is_some() && description.is_some(), "{key} is not described");
            let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
            told.entry(key.name().to_owned()).or_default().push((labels, value));
        }
    }
    told
}

/// The count of a counter with these labels, in all.
fn count(told: &Told, name: &str, labels: &[(&str, &str)]) -> u64 {
    let of =
        |of: &BTreeMap<String, String>| labels.iter().all(|(key, value)| of.get(*key).is_some_and(|of| of == value));
    let values = told.get(name).into_iter().flatten().filter(|(labels, _)| of(labels));
    values.map(|(_, value)| if let DebugValue::Counter(count) = value { *count } else { 0 }).sum()
}

/// Instances that are called as they come.
async fn instances(name: &str, discovery: &Discovery, manners: &[Manner]) -> (Vec<Backend>, Vec<Registration>) {
    let (mut backends, mut registrations) = (Vec::new(), Vec::new());
    for manner in manners {
        let backend = Backend::start(*manner).await;
        registrations.push(discovery.register(instance(name, backend.addr.port())).await.unwrap());
        backends.push(backend);
    }
    (backends, registrations)
}

#[tokio::test]
async fn every_documented_name_is_told_and_no_other() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // For this thread, on which all of the test runs.
    let _recording = set_default_local_recorder(&recorder);
    let server = server().await;
    let rules = CircuitBreaker::default().consecutive_failures(2).ejection(HANG, HANG);
    let builder = Discovery::builder().servers(server.rpc_addr()).timeout(HANG).circuit_breaker(rules);
    let discovery = builder.connect().await.unwrap();

    let _well = instances("well", &discovery, &[Manner::Well; 2]).await;
    for _ in 0..3 {
        soon(patient(&discovery, "well").get("/").send()).await.unwrap();
    }
    let told_well = told(&snapshotter);
    let well = ("service", "well");
    assert_eq!(count(&told_well, roundsman::metrics::CALLS, &[well, ("outcome", "answered")]), 3);
    assert_eq!(count(&told_well, roundsman::metrics::TRIES, &[well]), 3);
    assert!(!told_well.contains_key(roundsman::metrics::FAILURES));
    assert!(matches!(told_well[roundsman::metrics::LIST_AGE][..], [(_, DebugValue::Gauge(age))] if age.0 == 0.0));
    assert!(
        matches!(&told_well[roundsman::metrics::CALL_DURATION][..], [(_, DebugValue::Histogram(took))] if took.len() == 3)
    );

    let _ill = instances("ill", &discovery, &[Manner::Status(503); 2]).await;
    for _ in 0..3 {
        soon(patient(&discovery, "ill").post("/").send()).await.unwrap();
    }
    let gone = discovery.register(instance("gone", nowhere().await.port())).await.unwrap();
    soon(patient(&discovery, "gone").get("/").send()).await.unwrap_err();
    gone.close().await.unwrap();
    let _slow = instances("slow", &discovery, &[Manner::Hang, Manner::Well]).await;
    let slow = patient(&discovery, "slow").policy(Policy::RoundRobin).hedge_after(Duration::from_millis(20));
    for _ in 0..2 {
        soon(slow.get("/").send()).await.unwrap();
    }
    let waiting = instances("hung", &discovery, &[Manner::Hang]).await;
    let mut abandoned = Box::pin(patient(&discovery, "hung").get("/").send());
    eventually("it hangs", async || {
        drop(futures::poll!(&mut abandoned));
        waiting.0[0].seen().len() == 1
    })
    .await;
    drop(abandoned);
    let short = discovery.http("hung").timeout(Duration::from_millis(20)).post("/").send();
    soon(short).await.unwrap_err();
    for made_up in ["a1", "a2", "a3"] {
        soon(patient(&discovery, made_up).get("/").send()).await.unwrap_err();
    }

    let told = told(&snapshotter);
    let names: BTreeSet<_> = told.keys().map(String::as_str).chain(told_well.keys().map(String::as_str)).collect();
    assert_eq!(names, BTreeSet::from(ALL));
    let calls =
        |service, outcome| count(&told, roundsman::metrics::CALLS, &[("service", service), ("outcome", outcome)]);
    assert_eq!((calls("ill", "troubled"), calls("gone", "failed"), calls("slow", "answered")), (3, 1, 2));
    assert_eq!((calls("hung", "abandoned"), calls("hung", "deadline"), calls("", "nobody")), (1, 1, 3));
    let failures =
        |service, trouble| count(&told, roundsman::metrics::FAILURES, &[("service", service), ("trouble", trouble)]);
    assert_eq!((failures("ill", "status"), failures("gone", "refused"), failures("hung", "timeout")), (3, 3, 1));
    assert!((1..=2).contains(&count(&told, roundsman::metrics::HEDGES, &[("service", "slow")])));
    assert!(count(&told, roundsman::metrics::EJECTIONS, &[("service", "ill")]) >= 1);
    // Bounded: by service, never by instance, nor by a name that anybody makes up.
    let services = BTreeSet::from(["well", "ill", "gone", "slow", "hung", ""]);
    let keys = BTreeSet::from(["service", "outcome", "trouble"]);
    for (labels, _) in told.values().flatten() {
        assert!(services.contains(labels["service"].as_str()), "{labels:?}");
        assert!(labels.keys().all(|key| keys.contains(key.as_str())), "{labels:?}");
    }
    server.stop().await;
}

#[test]
fn the_documentation_lists_them_all() {
    let documented = include_str!("../../src/metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
    let documented: Vec<_> = documented.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(documented, ALL);
}
