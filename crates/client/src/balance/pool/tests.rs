//! How each policy spreads calls, and around whom it goes.

use super::{
    super::{eligible::tests::peers, member::Call},
    *,
};
use crate::cache::tests::instance;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::advance;

const CALLS: usize = 10_000;
const POLICIES: [Policy; 4] = [Policy::Weighted, Policy::RoundRobin, Policy::Random, Policy::PeakEwma];

fn pool_of(instances: Vec<Instance>, nearness: &Nearness) -> Pool {
    let snapshot = Snapshot::known(instances.into_iter().map(Arc::new).collect(), None);
    Pool::new(&Arc::new(snapshot), nearness, &peers())
}

/// Instances `i0`, `i1`, … with these weights.
fn pool(weights: &[u32]) -> Pool {
    let instances = weights.iter().enumerate();
    let instances = instances.map(|(n, weight)| Instance { weight: *weight, ..instance("product", &format!("i{n}")) });
    pool_of(instances.collect(), &Nearness::default())
}

fn id(choice: Option<Choice<'_>>) -> String {
    choice.unwrap().member.instance.id.to_string()
}

fn counts(pool: &Pool, policy: Policy) -> Vec<usize> {
    fastrand::seed(7);
    let mut counts = BTreeMap::<_, usize>::new();
    for turn in 0..CALLS {
        *counts.entry(id(pool.choose(policy, turn))).or_default() += 1;
    }
    pool.members().map(|member| counts.get(member.instance.id.as_str()).copied().unwrap_or(0)).collect()
}

#[tokio::test(start_paused = true)]
async fn every_policy_spreads_evenly_over_equals() {
    let pool = pool(&[1; 5]);
    for policy in POLICIES {
        // Five standard deviations of a binomial distribution are 200; turns are exact.
        let most = if policy == Policy::Random { 200 } else { 0 };
        let counts = counts(&pool, policy);
        assert!(counts.iter().all(|count| count.abs_diff(CALLS / 5) <= most), "{policy:?}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_and_one_are_no_special_cases() {
    for policy in POLICIES {
        assert!(pool(&[]).choose(policy, 3).is_none());
        assert_eq!(id(pool(&[1]).choose(policy, usize::MAX)), "i0");
    }
    assert!(pool(&[]).choose_for(b"aaa", &[]).is_none());
}

#[tokio::test(start_paused = true)]
async fn weights_are_shares() {
    let pool = pool(&[1, 2, 7, 10_000]);
    let shares = [1, 2, 7, 10_000].map(|weight| CALLS * weight / 10_010);
    for policy in [Policy::Weighted, Policy::RoundRobin, Policy::PeakEwma] {
        let counts = counts(&pool, policy);
        for (count, share) in counts.iter().zip(shares) {
            assert!(count.abs_diff(share) <= 4, "{policy:?}: {counts:?} of {shares:?}");
        }
    }
    let pool = self::pool(&[1, 10, 10]);
    for policy in POLICIES {
        let counts = counts(&pool, policy);
        let close = |count: usize, share: usize| count.abs_diff(CALLS * share / 21) <= 200;
        assert!(close(counts[0], 1) && close(counts[1], 10) && close(counts[2], 10), "{policy:?}: {counts:?}");
    }
    // In any short run as well: of eight turns, a fourth each goes to the lighter two.
    let pool = self::pool(&[1, 1, 2]);
    let run: Vec<_> = (1_000..1_008).map(|turn| id(pool.choose(Policy::Weighted, turn))).collect();
    let heavy = run.iter().filter(|id| **id == "i2").count();
    assert!((3..=5).contains(&heavy), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_go_around_the_slow_one() {
    let pool = pool(&[1; 4]);
    fastrand::seed(7);
    let mut asked = 0;
    for turn in 0..2_000 {
        let member = pool.choose(Policy::PeakEwma, turn).unwrap().member;
        let mut call = Call::begin(member, true, false);
        let slow = member.instance.id.as_str() == "i2";
        asked += usize::from(slow);
        advance(Duration::from_millis(if slow { 200 } else { 5 })).await;
        call.succeeded();
    }
    // One of four would be 500; it is asked now and then, to see whether it is still slow.
    assert!((1..50).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_push_others_away() {
    let pool = pool(&[1; 2]);
    fastrand::seed(7);
    let calls: Vec<_> =
        (0..100).map(|n| Call::begin(pool.choose(Policy::PeakEwma, n).unwrap().member, true, false)).collect();
    let (a, b) =
        (pool.members().next().unwrap().peer.load.cost(1.0), pool.members().nth(1).unwrap().peer.load.cost(1.0));
    assert!((a - b).abs() < 0.01 * a, "fifty each: {a} and {b}");
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_an_instance_outlasts_a_change_of_the_list() {
    let peers = peers();
    let list = |ids: &[&str]| {
        let instances = ids.iter().map(|id| Arc::new(instance("product", id))).collect();
        Pool::new(&Arc::new(Snapshot::known(instances, None)), &Nearness::default(), &peers)
    };
    let before = list(&["i0", "i1"]);
    let call = Call::begin(before.members().next().unwrap(), true, false);
    let after = list(&["i0", "i9"]);
    assert!(after.members().next().unwrap().peer.load.cost(1.0) > after.members().nth(1).unwrap().peer.load.cost(1.0));
    drop((before, after, call));
    let anew = list(&["i0", "i1"]);
    assert!(
        (anew.members().next().unwrap().peer.load.cost(1.0) - anew.members().nth(1).unwrap().peer.load.cost(1.0)).abs()
            < 0.1,
        "forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn keys_stay_where_they_are() {
    let keys: Vec<String> = (0..CALLS).map(|n| format!("key-{n}")).collect();
    let homes =
        |pool: &Pool| -> Vec<String> { keys.iter().map(|key| id(pool.choose_for(key.as_bytes(), &[]))).collect() };
    let of = |ids: &[usize]| {
        let instances = ids.iter().map(|n| instance("product", &format!("i{n}"))).collect();
        homes(&pool_of(instances, &Nearness::default()))
    };
    let five = of(&[0, 1, 2, 3, 4]);
    for n in 0..5 {
        let count = five.iter().filter(|home| **home == format!("i{n}")).count();
        assert!(count.abs_diff(CALLS / 5) <= 200, "i{n}: {count}");
    }
    // One goes: only its keys move. One comes: keys move only to it, about a sixth.
    let four = of(&[0, 1, 3, 4]);
    assert!(five.iter().zip(&four).all(|(before, after)| before == "i2" || before == after));
    let six = of(&[0, 1, 2, 3, 4, 5]);
    let moved: Vec<_> = five.iter().zip(&six).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| *after == "i5"));
    assert!(moved.len().abs_diff(CALLS / 6) <= 200, "{}", moved.len());
    // Fixed for all versions: callers of different ages agree.
    assert_eq!((hash(b"product-1"), hash(b"")), (0xd1c6_6538_ea06_e426, 0xf52a_15e9_a9b5_e89b));
}

#[tokio::test(start_paused = true)]
async fn the_zone_is_preferred_and_the_host_insisted_on() {
    let at = |id: &str, zone: &str, host: &str| Instance {
        zone: Some(zone.into()),
        address: format!("{host}:7070").parse().unwrap(),
        ..instance("product", id)
    };
    let all = || vec![at("a", "a", "10.0.0.1"), at("b", "b", "10.0.0.2"), at("c", "b", "10.0.0.3")];
    let ids = |zone: Option<&str>, host: Option<&str>| -> Vec<String> {
        let nearness =
            Nearness { zone: zone.map(Into::into), host: host.map(|host| host.parse().unwrap()), part: None };
        pool_of(all(), &nearness).members().map(|member| member.instance.id.to_string()).collect()
    };
    assert_eq!(ids(Some("b"), None), ["b", "c", "a"], "the near ones first");
    let pool = pool_of(all(), &Nearness { zone: Some("b".into()), ..Nearness::default() });
    assert!((0..100).all(|turn| id(pool.choose(Policy::RoundRobin, turn)) != "a"));
    assert_eq!(ids(Some("nowhere"), None), ["a", "b", "c"], "spills over");
    assert_eq!(ids(None, Some("10.0.0.3")), ["c"]);
    assert_eq!(ids(Some("a"), Some("10.0.0.3")), ["c"], "never another host");
    assert!(ids(None, Some("10.0.0.9")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn busy_instances_keep_the_shares_of_their_weights() {
    // Many calls at a time, all equally slow: 1:10:10 of those under way, too.
    let pool = pool(&[1, 10, 10]);
    fastrand::seed(7);
    let mut under_way = std::collections::VecDeque::new();
    let mut counts = [0_usize; 3];
    for turn in 0..2_100 {
        let member = pool.choose(Policy::PeakEwma, turn).unwrap().member;
        counts[member.instance.id.as_str()[1..].parse::<usize>().unwrap()] += 1;
        under_way.push_back(Call::begin(member, true, false));
        advance(Duration::from_millis(1)).await;
        if under_way.len() > 42 {
            drop(under_way.pop_front().unwrap().succeeded());
        }
    }
    assert!(counts[0].abs_diff(100) <= 20 && counts[1].abs_diff(counts[2]) <= 100, "{counts:?}");
}
