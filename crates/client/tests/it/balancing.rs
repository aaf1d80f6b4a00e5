//! Which instance a resolver picks, as the list changes under it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use roundsman::{Discovery, Error, Policy, Query, Registration, Resolver};
use tokio::task::JoinSet;

use crate::support::{StoppedClock, client, eventually, instance, server, soon};

/// Instances `i0`, `i1`, … of `product`, of this and that zone in turn.
async fn products(discovery: &Discovery, count: u16) -> Vec<Registration> {
    let mut kept = Vec::new();
    for n in 0..count {
        let zone = if n % 2 == 0 { "this" } else { "that" };
        let new = instance("product", 7070 + n).id(format!("i{n}")).unwrap().zone(zone).weight(1 + u32::from(n));
        kept.push(discovery.register(new).await.unwrap());
    }
    kept
}

fn counts(resolver: &Resolver, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(resolver.pick().unwrap().id.to_string()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn each_resolver_has_its_policy() {
    let server = server().await;
    let discovery = client(&server).await;
    let _kept = products(&discovery, 3).await;
    // A pick that is held for long counts as a slow call: here, none is.
    let clock = StoppedClock::new();
    let resolver = async |policy| discovery.resolver("product").policy(policy).await.unwrap();
    // Of weights 1, 2 and 3.
    for policy in [Policy::Weighted, Policy::RoundRobin, Policy::Random, Policy::PeakEwma] {
        let most = if policy == Policy::Random { 70 } else { 5 };
        let counts: Vec<_> = counts(&resolver(policy).await, 600).into_values().collect();
        let close = counts.iter().zip([100, 200, 300]).all(|(count, share)| count.abs_diff(share) <= most);
        assert!(counts.len() == 3 && close, "{policy:?}: {counts:?}");
    }
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn calls_that_fail_drive_others_away_until_the_list_changes_and_after() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut kept = products(&discovery, 3).await;
    let resolver = discovery.resolver("product").policy(Policy::PeakEwma).await.unwrap();
    // All calls take no time.
    let clock = StoppedClock::new();
    // Everybody is asked once; one fails, however fast.
    let mut asked = BTreeSet::new();
    while asked.len() < 3 {
        let pick = resolver.pick().unwrap();
        asked.insert(pick.id.clone());
        if pick.id.as_str() == "i1" { pick.failed() } else { pick.succeeded() }
    }
    assert!(!counts(&resolver, 300).contains_key("i1"));
    let last = kept.pop().unwrap();
    last.close().await.unwrap();
    eventually("the list has changed", async || resolver.instances().len() == 2).await;
    assert_eq!(counts(&resolver, 300).into_keys().collect::<Vec<_>>(), ["i0"], "it is remembered");
    // But never refused when there is no other.
    kept.remove(0).close().await.unwrap();
    eventually("one is left", async || resolver.instances().len() == 1).await;
    assert_eq!(resolver.pick().unwrap().id.as_str(), "i1");
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn the_own_zone_first_then_any() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut kept = products(&discovery, 3).await;
    let near = discovery.resolver("product").prefer_zone("that").await.unwrap();
    assert_eq!(counts(&near, 100).into_keys().collect::<Vec<_>>(), ["i1"]);
    assert_eq!(near.instances().len(), 3, "all are known");
    let only = kept.remove(1);
    only.drain(true).await.unwrap();
    eventually("spills over", async || near.pick().unwrap().id.as_str() != "i1").await;
    assert_eq!(counts(&near, 100).into_keys().collect::<Vec<_>>(), ["i0", "i2"]);
    only.drain(false).await.unwrap();
    eventually("comes home", async || near.pick().unwrap().id.as_str() == "i1").await;
    server.stop().await;
}

#[tokio::test]
async fn another_host_is_never_picked_when_it_must_be_this_one() {
    let server = server().await;
    let discovery = client(&server).await;
    let _kept = products(&discovery, 2).await;
    let beside = discovery.resolver("product").same_host("10.0.0.8").await.unwrap();
    assert!(beside.pick().is_none() && beside.pick_for("aaa").is_none() && beside.instances().len() == 2);
    let new = || roundsman::NewInstance::new("product", "10.0.0.8:7070").unwrap().check(roundsman::Check::none());
    let (first, registration) = tokio::join!(soon(beside.wait_for_first()), discovery.register(new()));
    assert_eq!(first.unwrap().id, *registration.unwrap().id());
    let wrong = discovery.resolver("product").same_host("not a host").await.unwrap_err();
    assert!(matches!(&wrong, Error::Invalid(invalid) if invalid.field == "address"), "{wrong}");
    server.stop().await;
}

#[tokio::test]
async fn all_callers_agree_where_a_key_goes() {
    let server = server().await;
    let (discovery, other) = (client(&server).await, client(&server).await);
    let mut kept = products(&discovery, 5).await;
    let ours = discovery.resolver("product").await.unwrap();
    let theirs = other.resolver_for(Query::default()).policy(Policy::Random).await.unwrap();
    let homes = |resolver: &Resolver| -> Vec<_> {
        (0..200).map(|n| resolver.pick_for(format!("key-{n}")).unwrap().id.clone()).collect()
    };
    let before = homes(&ours);
    assert_eq!(before, homes(&theirs));
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 5, "every instance has some");
    kept.remove(2).close().await.unwrap();
    eventually("both know", async || ours.instances().len() == 4 && theirs.instances().len() == 4).await;
    let after = homes(&ours);
    assert_eq!(after, homes(&theirs));
    assert!(before.iter().zip(&after).all(|(before, after)| before.as_str() == "i2" || before == after));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picking_goes_on_while_the_list_changes() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let server = server().await;
    let discovery = client(&server).await;
    let stable = discovery.register(instance("product", 7069).id("stable").unwrap()).await.unwrap();
    let resolver = discovery.resolver("product").policy(Policy::PeakEwma).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..3 {
        let resolver = resolver.clone();
        callers.spawn(async move {
            let mut calls = 0_u32;
            while !OVER.load(Ordering::Relaxed) {
                let pick = resolver.pick().expect("one is always there");
                tokio::task::yield_now().await;
                pick.succeeded();
                calls += 1;
            }
            calls
        });
    }
    for _ in 0..20 {
        for registration in products(&discovery, 3).await {
            registration.close().await.unwrap();
        }
    }
    // What came before this is known when this is.
    stable.update(|instance| instance.weight(2)).await.unwrap();
    let is_last = async || matches!(&resolver.instances()[..], [one] if one.weight == 2);
    eventually("only one is left", is_last).await;
    OVER.store(true, Ordering::Relaxed);
    while let Some(calls) = soon(callers.join_next()).await {
        assert!(calls.unwrap() > 0);
    }
    // Once all know of the change, nobody picks one that is gone.
    assert!((0..100).all(|_| resolver.pick().unwrap().id.as_str() == "stable"));
    server.stop().await;
}
