//! Ejections: who is passed over, for how long, and who comes back.

use std::time::Duration;

use roundsman_protocol::{Instance, InstanceId};
use tokio::{sync::watch, time::advance};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{Balancer, Pick, Policy, peer::Peers},
    *,
};
use crate::{breaker::CircuitBreaker, cache::tests::instance, link::Link, reports::Reports, snapshot::Snapshot};

const POLICIES: [Policy; 4] = [Policy::Weighted, Policy::RoundRobin, Policy::Random, Policy::PeakEwma];

/// Peers whose reports go nowhere.
pub(crate) fn peers() -> Peers {
    let reports = Reports::new(watch::channel(Link::Closed).1, CancellationToken::new(), TaskTracker::new());
    Peers::new(CircuitBreaker::default(), reports)
}

/// A resolver's inner life.
struct World {
    peers: Arc<Peers>,
    snapshot: Arc<Snapshot>,
    balancer: Balancer,
}

impl World {
    fn new(instances: Vec<Instance>, policy: Policy, nearness: Nearness) -> Self {
        let snapshot = Arc::new(Snapshot::known(instances.into_iter().map(Arc::new).collect(), None));
        let peers = Arc::new(peers());
        let balancer = Balancer::new(policy, nearness, Arc::clone(&peers), &snapshot);
        Self { peers, snapshot, balancer }
    }

    fn of(count: usize, policy: Policy) -> Self {
        let instances = (0..count).map(|n| instance("product", &format!("i{n}")));
        Self::new(instances.collect(), policy, Nearness::default())
    }

    fn pick(&self) -> Pick {
        self.balancer.pick(&self.snapshot).unwrap()
    }

    /// One call each to so many picks; the ids that were called.
    fn called(&self, calls: usize) -> Vec<String> {
        let mut ids: Vec<_> = (0..calls)
            .map(|_| {
                let pick = self.pick();
                let id = pick.id.to_string();
                pick.succeeded();
                id
            })
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Calls to this one fail until nothing changes any more.
    fn fail(&self, id: &str) {
        let everything =
            Balancer::new(Policy::RoundRobin, Nearness::default(), Arc::clone(&self.peers), &self.snapshot);
        for _ in 0..10_000 {
            let pick = everything.pick(&self.snapshot).unwrap();
            if pick.id.as_str() == id { pick.failed() } else { pick.succeeded() }
        }
    }

    fn ejected(&self) -> Vec<String> {
        self.balancer.ejected(&self.snapshot).iter().map(|instance| instance.id.to_string()).collect()
    }
}

fn at(id: &str, zone: &str, host: &str) -> Instance {
    let address = format!("{host}:7070").parse().unwrap();
    Instance { zone: Some(zone.into()), address, ..instance("product", id) }
}

#[tokio::test(start_paused = true)]
async fn no_policy_picks_an_ejected_instance_while_there_is_another() {
    for policy in POLICIES {
        let world = World::of(4, policy);
        assert_eq!(world.called(200), ["i0", "i1", "i2", "i3"], "{policy:?}");
        world.fail("i2");
        assert_eq!(world.ejected(), ["i2"], "{policy:?}");
        assert_eq!(world.called(2_000), ["i0", "i1", "i3"], "{policy:?}");
        let home = |key: usize| world.balancer.pick_for(&world.snapshot, &key.to_be_bytes()).unwrap().id.to_string();
        assert!((0..2_000).all(|key| home(key) != "i2"));
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_half_of_a_service_is_ejected() {
    for count in 1..=7 {
        let world = World::of(count, Policy::RoundRobin);
        for n in 0..count {
            world.fail(&format!("i{n}"));
        }
        assert_eq!(world.ejected().len(), count / 2, "of {count}");
        assert_eq!(world.called(100).len(), count - count / 2, "of {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_in_one_list_are_counted_apart() {
    let instances = vec![instance("order", "o1"), instance("order", "o2"), instance("product", "p1")];
    let world = World::new(instances, Policy::RoundRobin, Nearness::default());
    for id in ["o1", "p1"] {
        world.fail(id);
    }
    assert_eq!(world.ejected(), ["o1"], "there is no other product");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_instance_gets_one_call_at_a_time() {
    let world = World::of(3, Policy::RoundRobin);
    world.fail("i1");
    advance(Duration::from_millis(1_300)).await;
    let trial = world.pick();
    assert_eq!(trial.id.as_str(), "i1");
    assert_eq!(world.called(100), ["i0", "i2"], "not another one before it is answered");
    drop(trial);
    assert_eq!(world.called(100), ["i0", "i2"], "given up without a word: not everybody follows at once");
    advance(Duration::from_secs(1)).await;
    let trial = world.pick();
    assert_eq!(trial.id.as_str(), "i1", "somebody else tries");
    trial.failed();
    assert_eq!(world.called(100), ["i0", "i2"], "ejected anew");
    advance(Duration::from_millis(1_300)).await;
    assert_eq!(world.called(100), ["i0", "i2"], "and for longer");
    advance(Duration::from_millis(1_300)).await;
    let trial = world.pick();
    assert_eq!(trial.id.as_str(), "i1");
    trial.succeeded();
    assert_eq!(world.called(100), ["i0", "i1", "i2"], "it is back");
}

#[tokio::test(start_paused = true)]
async fn what_began_before_an_ejection_says_nothing_afterwards() {
    let world = World::of(2, Policy::RoundRobin);
    let early: Vec<_> = (0..20).map(|_| world.pick()).collect();
    world.fail("i0");
    let ejected = world.ejected();
    for pick in early {
        if pick.id.as_str() == "i0" { pick.succeeded() } else { drop(pick) }
    }
    assert_eq!(world.ejected(), ejected, "a late answer does not close it");
}

#[tokio::test(start_paused = true)]
async fn another_zone_serves_when_all_of_ours_are_ejected() {
    let instances = vec![at("a1", "a", "h1"), at("b1", "b", "h2"), at("b2", "b", "h3"), at("b3", "b", "h4")];
    let zone = |zone: &str| Nearness { zone: Some(zone.into()), host: None };
    let world = World::new(instances, Policy::RoundRobin, zone("a"));
    assert_eq!(world.called(10), ["a1"]);
    world.fail("a1");
    assert_eq!(world.called(10), ["b1", "b2", "b3"]);
    advance(Duration::from_millis(1_300)).await;
    world.pick().succeeded();
    assert_eq!(world.called(10), ["a1"], "back at home");
}

#[tokio::test(start_paused = true)]
async fn with_nobody_else_on_the_host_an_ejected_one_is_better_than_none() {
    let instances = vec![at("a", "a", "h1"), at("b", "a", "h2"), at("c", "a", "h3")];
    let host = Nearness { zone: None, host: Some("h1".parse().unwrap()) };
    let world = World::new(instances, Policy::RoundRobin, host);
    world.fail("a");
    assert_eq!(world.called(10), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn tries_go_to_others_for_as_long_as_there_are_any() {
    let world = World::of(3, Policy::RoundRobin);
    let mut tried: Vec<InstanceId> = Vec::new();
    for _ in 0..3 {
        let pick = world.balancer.pick_except(&world.snapshot, &tried).unwrap();
        assert!(!tried.contains(&pick.id));
        tried.push(pick.id.clone());
    }
    assert!(world.balancer.pick_except(&world.snapshot, &tried).is_some(), "then one of them after all");
}
