//! Ejections: who is passed over, for how long, and who comes back.

use std::time::Duration;

use roundsman_protocol::{Instance, InstanceId, Trouble};
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

    /// Calls are answered, one at a time, until this one is back.
    fn recover(&self, id: &str) {
        for _ in 0..3 {
            let trial = self.pick();
            assert_eq!(trial.id.as_str(), id);
            trial.succeeded();
        }
        assert!(!self.ejected().iter().any(|ejected| ejected == id));
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
    assert_eq!(world.called(100), ["i0", "i2"]);
    trial.succeeded();
    world.pick().failed();
    assert_eq!(world.called(100), ["i0", "i2"], "one answer of three is not enough");
    advance(Duration::from_secs(10)).await;
    world.recover("i1");
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
    let zone = |zone: &str| Nearness { zone: Some(zone.into()), ..Nearness::default() };
    let world = World::new(instances, Policy::RoundRobin, zone("a"));
    assert_eq!(world.called(10), ["a1"]);
    world.fail("a1");
    assert_eq!(world.called(10), ["b1", "b2", "b3"]);
    advance(Duration::from_millis(1_300)).await;
    world.recover("a1");
    assert!(world.called(40).contains(&"a1".to_owned()));
    advance(Duration::from_secs(8)).await;
    assert_eq!(world.called(40), ["a1"], "back at home");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_back_or_new_begins_with_a_few_calls() {
    for policy in POLICIES {
        fastrand::seed(7);
        let world = World::of(4, policy);
        assert_eq!(world.called(40).len(), 4, "when all are new, nobody is");
        advance(Duration::from_secs(20)).await;
        world.fail("i2");
        advance(Duration::from_millis(1_300)).await;
        world.recover("i2");
        let share = |snapshot: &Arc<Snapshot>, id: &str| {
            let picks = (0..1_000).map(|_| world.balancer.pick(snapshot).unwrap());
            picks.filter(|pick| pick.id.as_str() == id).count()
        };
        // A tenth of three and a tenth, five of thirty-five, and all of it.
        for (after, expected) in [(0, 32), (5, 143), (6, 250)] {
            advance(Duration::from_secs(after)).await;
            let count = share(&world.snapshot, "i2");
            assert!(count.abs_diff(expected) <= 60, "{policy:?}: {count} of 1,000, not {expected}");
        }
        let mut more: Vec<_> = world.snapshot.instances().to_vec();
        more.push(Arc::new(instance("product", "i9")));
        let more = Arc::new(Snapshot::known(more, None));
        assert!(share(&more, "i9") <= 70, "{policy:?}");
        advance(Duration::from_secs(11)).await;
        assert!(share(&more, "i9") >= 130, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_had_to_come_from_this_one_brings_it_not_back() {
    let world = World::of(3, Policy::RoundRobin);
    let named = |answered: bool| {
        let pick = world.balancer.pick_this(&world.snapshot, &"i1".parse().unwrap()).unwrap();
        if answered { pick.succeeded() } else { pick.failed() }
    };
    // Nor does it keep the circuit from opening: each of these fails once, and then answers what undoes it.
    let mut failures = 0;
    while world.ejected().is_empty() {
        let pick = world.pick();
        if pick.id.as_str() == "i1" {
            failures += 1;
            pick.failed();
            named(true);
        } else {
            pick.succeeded();
        }
    }
    assert_eq!(failures, 5);
    advance(Duration::from_millis(1_300)).await;
    for _ in 0..10 {
        named(true);
    }
    assert_eq!(world.ejected(), ["i1"], "half-open as before");
    named(false);
    assert_eq!(world.called(50), ["i0", "i2"], "a failure tells as much as any other");
}

#[tokio::test(start_paused = true)]
async fn answers_of_no_use_are_failures() {
    let world = World::of(3, Policy::RoundRobin);
    let mut rejected = 0;
    while world.ejected().is_empty() {
        let pick = world.pick();
        if pick.id.as_str() == "i1" {
            rejected += 1;
            let verdict = pick.answered();
            verdict.rejected();
            verdict.rejected();
        } else {
            pick.succeeded();
        }
    }
    assert_eq!((rejected, world.ejected()), (5, vec!["i1".to_owned()]), "each counts once");
    advance(Duration::from_millis(1_300)).await;
    let trial = world.pick();
    assert_eq!(trial.id.as_str(), "i1");
    trial.answered().rejected();
    assert_eq!(world.called(50), ["i0", "i2"]);
    // Several at a time, so that each is answered before the one before it is rejected.
    let world = World::of(3, Policy::RoundRobin);
    for _ in 0..10 {
        let verdicts: Vec<_> =
            (0..12).map(|_| world.pick()).map(|pick| (pick.id.to_string(), pick.answered())).collect();
        verdicts.iter().filter(|(id, _)| id == "i1").for_each(|(_, verdict)| verdict.rejected());
    }
    assert_eq!(world.ejected(), ["i1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_or_ejected_hides_nobody() {
    let instances = vec![at("a1", "a", "h1"), at("a2", "a", "h2"), at("b1", "b", "h3"), at("b2", "b", "h4")];
    let world = World::new(instances, Policy::RoundRobin, Nearness { zone: Some("a".into()), ..Nearness::default() });
    let tried: Vec<InstanceId> = ["a1", "a2"].map(|id| id.parse().unwrap()).into();
    for _ in 0..10 {
        let pick = world.balancer.pick_except(&world.snapshot, &tried).unwrap();
        assert_eq!(pick.zone.as_deref(), Some("b"), "the other zone, and not the same again");
    }
    world.fail("b2");
    let tried: Vec<InstanceId> = ["a1", "a2", "b1"].map(|id| id.parse().unwrap()).into();
    assert!(world.balancer.pick_other(&world.snapshot, &tried).is_none());
    assert_eq!(world.balancer.pick_except(&world.snapshot, &tried).unwrap().id.as_str(), "b2");
}

#[tokio::test(start_paused = true)]
async fn a_zone_spills_over_as_far_as_it_is_not_well() {
    let instances = (0..4).map(|n| at(&format!("a{n}"), "a", "h1"));
    let instances = instances.chain((0..4).map(|n| at(&format!("b{n}"), "b", "h2"))).collect();
    let world = World::new(instances, Policy::RoundRobin, Nearness { zone: Some("a".into()), ..Nearness::default() });
    let near = |world: &World| (0..1_000).filter(|_| world.pick().zone.as_deref() == Some("a")).count();
    // 1.4 times three of four is all of it, two of four 0.7, one of four 0.35.
    for (ejected, expected) in [("a0", 1_000), ("a1", 700), ("a2", 350), ("a3", 0)] {
        world.fail(ejected);
        let near = near(&world);
        assert!(near.abs_diff(expected) <= 20, "{ejected}: {near} of 1,000");
    }
}

#[tokio::test(start_paused = true)]
async fn equals_have_equal_shares() {
    for policy in [Policy::PeakEwma, Policy::Weighted] {
        let world = World::of(3, policy);
        let mut counts = BTreeMap::<_, usize>::new();
        for n in 0..600_u64 {
            let pick = world.pick();
            *counts.entry(pick.id.to_string()).or_default() += 1;
            // The first one connects, and now and then the machine is busy.
            advance(Duration::from_millis(if n < 3 || n % 97 == 0 { 40 } else { 1 + n % 3 })).await;
            pick.succeeded();
        }
        assert!(counts.values().all(|count| (180..=220).contains(count)), "{policy:?}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_nobody_else_on_the_host_an_ejected_one_is_better_than_none() {
    let instances = vec![at("a", "a", "h1"), at("b", "a", "h2"), at("c", "a", "h3")];
    let host = Nearness { host: Some("h1".parse().unwrap()), ..Nearness::default() };
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

#[tokio::test(start_paused = true)]
async fn at_another_address_it_is_another_process() {
    let mut world = World::of(4, Policy::RoundRobin);
    world.fail("i1");
    assert_eq!(world.ejected(), ["i1"]);
    let moved = world.snapshot.instances().iter().map(|instance| match instance.id.as_str() {
        "i1" => Arc::new(Instance { address: "10.0.0.8:7070".parse().unwrap(), ..Instance::clone(instance) }),
        _ => Arc::clone(instance),
    });
    let moved = Arc::new(Snapshot::known(moved.collect(), None));
    world.snapshot = moved;
    assert_eq!(world.ejected(), [""; 0]);
    assert_eq!(world.called(200), ["i0", "i1", "i2", "i3"]);
}

#[tokio::test(start_paused = true)]
async fn near_ones_without_a_weight_are_near_all_the_same() {
    let near = (0..2).map(|n| Instance { weight: 0, ..at(&format!("i{n}"), "here", "10.0.0.7") });
    let far = at("i2", "there", "10.0.0.7");
    let nearness = Nearness { zone: Some("here".into()), ..Nearness::default() };
    let world = World::new(near.chain([far]).collect(), Policy::Weighted, nearness);
    assert_eq!(world.called(200), ["i0", "i1"]);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_told_to_come_again_at_once_has_failed() {
    let world = World::of(3, Policy::RoundRobin);
    world.fail("i1");
    advance(Duration::from_millis(1_300)).await;
    let trial = world.pick();
    assert_eq!(trial.id.as_str(), "i1");
    trial.hold(Duration::ZERO);
    trial.failed_by(Trouble::Status(503));
    assert_eq!(world.called(50), ["i0", "i2"], "ejected anew");
    advance(Duration::from_millis(1_300)).await;
    assert_eq!(world.called(50), ["i0", "i2"], "and for longer");
}

#[tokio::test(start_paused = true)]
async fn further_answers_that_ask_for_time_are_no_further_ejections() {
    let world = World::of(3, Policy::RoundRobin);
    let under_way: Vec<_> = (0..60).map(|_| world.pick()).filter(|pick| pick.id.as_str() == "i1").collect();
    let before = world.peers.turns();
    for pick in under_way {
        advance(Duration::from_millis(1)).await;
        pick.hold(Duration::from_secs(3));
        pick.failed_by(Trouble::Status(503));
    }
    assert_eq!(world.ejected(), ["i1"]);
    assert_eq!(world.peers.turns() - before, 1, "of twenty answers");
    advance(Duration::from_millis(2_990)).await;
    assert_eq!(world.called(50), ["i0", "i2"], "for as long as the last of them said");
    advance(Duration::from_millis(10)).await;
    world.recover("i1");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_does_not_end_is_not_waited_for_for_ever() {
    let world = World::of(3, Policy::RoundRobin);
    world.fail("i1");
    advance(Duration::from_millis(1_300)).await;
    let lasts = world.pick();
    assert_eq!(lasts.id.as_str(), "i1");
    assert_eq!(world.called(50), ["i0", "i2"]);
    advance(Duration::from_secs(20)).await;
    let next = world.pick();
    assert_eq!(next.id.as_str(), "i1", "somebody else tries");
    assert_eq!(world.called(50), ["i0", "i2"], "and is waited for as well");
    next.succeeded();
    assert!(world.called(50).contains(&"i1".to_owned()));
    lasts.succeeded();
    assert_eq!(world.called(50), ["i0", "i1", "i2"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_stays_while_the_rest_of_its_zone_is_replaced_is_not_drowned() {
    let nearness = Nearness { zone: Some("a".into()), ..Nearness::default() };
    let zone =
        |zone: &str, from: usize| (from..10).map(|n| at(&format!("{zone}{n}"), &zone[..1], "h")).collect::<Vec<_>>();
    let old = [zone("a", 0), zone("b", 0)].concat();
    let mut world = World::new(old, Policy::RoundRobin, nearness);
    advance(Duration::from_secs(20)).await;
    let calls = |world: &World| (0..1_000).filter(|_| world.pick().id.as_str() == "a0").count();
    assert_eq!(calls(&world), 100, "a tenth of its zone");
    let replaced = [zone("a", 0)[..1].to_vec(), zone("a-new", 1), zone("b", 0)].concat();
    world.snapshot = Arc::new(Snapshot::known(replaced.into_iter().map(Arc::new).collect(), None));
    let calls = calls(&world);
    assert!(calls <= 160, "{calls} of 1,000, while the nine others of its zone start slowly");
}
