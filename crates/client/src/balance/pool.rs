//! The instances that come into question, prepared for fast choices.

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::{Instance, InstanceId};

use super::{Nearness, Policy, load::Load};
use crate::snapshot::Snapshot;

/// Those of a snapshot's instances that come into question. Immutable, but for the loads.
#[derive(Debug)]
pub(crate) struct Pool {
    snapshot: Arc<Snapshot>,
    members: Box<[Member]>,
    /// The weights of each and all before it; none when all are equal.
    weights: Option<Box<[u64]>>,
}

/// One instance, and what we know of it by our own calls.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) load: Arc<Load>,
    hash: u64,
}

// === impl Pool ===

impl Pool {
    /// The pool of a snapshot; `before` hands on what is known of those that stay.
    pub(crate) fn new(snapshot: &Arc<Snapshot>, nearness: &Nearness, before: Option<&Self>) -> Self {
        let known: HashMap<_, _> = before
            .into_iter()
            .flat_map(|pool| &pool.members)
            .map(|member| (&member.instance.id, &member.load))
            .collect();
        let load = |instance: &Instance| known.get(&instance.id).map_or_else(Arc::default, |load| Arc::clone(load));
        let members = near(snapshot.instances(), nearness).into_iter().map(|instance| Member {
            load: load(instance),
            hash: hash(instance.id.as_str().as_bytes()),
            instance: Arc::clone(instance),
        });
        let members: Box<[Member]> = members.collect();
        Self { snapshot: Arc::clone(snapshot), weights: weights(&members), members }
    }

    /// Whether this is the pool of that snapshot.
    pub(crate) fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
    }

    /// One of them. `turn` counts up from call to call.
    pub(crate) fn choose(&self, policy: Policy, turn: usize) -> Option<&Member> {
        match policy {
            Policy::Weighted => self.weighted(turn),
            Policy::RoundRobin => self.in_turn(turn),
            Policy::Random => self.members.get(self.any()?),
            Policy::PeakEwma => self.lighter_of_two(),
        }
    }

    /// The one for this key: the one whose hash together with the key's is the highest. An instance that goes
    /// leaves only its own keys to the others, one that comes takes its share from all.
    pub(crate) fn choose_for(&self, key: &[u8]) -> Option<&Member> {
        let key = hash(key);
        self.members.iter().max_by_key(|member| mix(member.hash ^ key))
    }

    /// Another one than these; with no other left, any.
    pub(crate) fn choose_except(&self, policy: Policy, turn: usize, tried: &[InstanceId]) -> Option<&Member> {
        let untried = |member: &&Member| !tried.contains(&member.instance.id);
        let chosen = self.choose(policy, turn)?;
        if tried.is_empty() || untried(&chosen) {
            return Some(chosen);
        }
        let others = self.members.iter().filter(untried).count();
        let nth = turn.checked_rem(others).unwrap_or_default();
        self.members.iter().filter(untried).nth(nth).or(Some(chosen))
    }

    fn in_turn(&self, turn: usize) -> Option<&Member> {
        self.members.get(turn.checked_rem(self.members.len())?)
    }

    fn weighted(&self, turn: usize) -> Option<&Member> {
        let Some(weights) = &self.weights else { return self.in_turn(turn) };
        // Multiples of the golden ratio fill the range evenly: each gets its share, and no long run of calls.
        let spread = u64::try_from(turn).unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let total = weights.last().copied().unwrap_or_default();
        let at = u64::try_from((u128::from(spread) * u128::from(total)) >> 64).unwrap_or_default();
        self.members.get(weights.partition_point(|sum| *sum <= at))
    }

    fn lighter_of_two(&self) -> Option<&Member> {
        let first = self.any()?;
        let count = self.members.len();
        if count == 1 {
            return self.members.get(first);
        }
        // Another one, and each of the others as likely.
        let second = (first + fastrand::usize(1..count)) % count;
        let (first, second) = (self.members.get(first)?, self.members.get(second)?);
        Some(if second.load.cost() < first.load.cost() { second } else { first })
    }

    fn any(&self) -> Option<usize> {
        (!self.members.is_empty()).then(|| fastrand::usize(..self.members.len()))
    }
}

/// Those of the instances that come into question.
pub(crate) fn near<'a>(instances: &'a [Arc<Instance>], nearness: &Nearness) -> Vec<&'a Arc<Instance>> {
    let here = |instance: &&Arc<Instance>| nearness.host.as_ref().is_none_or(|host| instance.address.host() == host);
    let mut possible: Vec<_> = instances.iter().filter(here).collect();
    if nearness.zone.is_some() && possible.iter().any(|instance| instance.zone == nearness.zone) {
        possible.retain(|instance| instance.zone == nearness.zone);
    }
    possible
}

fn weights(members: &[Member]) -> Option<Box<[u64]>> {
    let first = members.first()?.instance.weight;
    if members.iter().all(|member| member.instance.weight == first) {
        return None;
    }
    let mut sum = 0_u64;
    let sums = members.iter().map(|member| {
        sum += u64::from(member.instance.weight);
        sum
    });
    Some(sums.collect())
}

/// FNV-1a. The same in every process and every version, so that all callers agree on where a key goes.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(hash)
}

/// The last step of splitmix64, for what FNV does not spread.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::load::Flight;
    use super::*;
    use crate::cache::tests::instance;
    use std::{collections::BTreeMap, time::Duration};
    use tokio::time::advance;

    const CALLS: usize = 10_000;
    const POLICIES: [Policy; 4] = [Policy::Weighted, Policy::RoundRobin, Policy::Random, Policy::PeakEwma];

    fn pool_of(instances: Vec<Instance>, nearness: &Nearness) -> Pool {
        let snapshot = Snapshot::known(instances.into_iter().map(Arc::new).collect(), None);
        Pool::new(&Arc::new(snapshot), nearness, None)
    }

    /// Instances `i0`, `i1`, … with these weights.
    fn pool(weights: &[u32]) -> Pool {
        let instances = weights.iter().enumerate();
        let instances =
            instances.map(|(n, weight)| Instance { weight: *weight, ..instance("product", &format!("i{n}")) });
        pool_of(instances.collect(), &Nearness::default())
    }

    fn id(member: Option<&Member>) -> String {
        member.unwrap().instance.id.to_string()
    }

    fn counts(pool: &Pool, policy: Policy) -> Vec<usize> {
        fastrand::seed(7);
        let mut counts = BTreeMap::<_, usize>::new();
        for turn in 0..CALLS {
            *counts.entry(id(pool.choose(policy, turn))).or_default() += 1;
        }
        pool.members.iter().map(|member| counts.get(member.instance.id.as_str()).copied().unwrap_or(0)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_policy_spreads_evenly_over_equals() {
        let pool = pool(&[1; 5]);
        for policy in POLICIES {
            // Five standard deviations of a binomial distribution are 200; turns are exact.
            let most = if matches!(policy, Policy::Random | Policy::PeakEwma) { 200 } else { 0 };
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
        assert!(pool(&[]).choose_for(b"aaa").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn weights_are_shares() {
        let pool = pool(&[1, 2, 7, 10_000]);
        let shares = [1, 2, 7, 10_000].map(|weight| CALLS * weight / 10_010);
        let weighted = counts(&pool, Policy::Weighted);
        for (count, share) in weighted.iter().zip(shares) {
            assert!(count.abs_diff(share) <= 4, "{weighted:?} of {shares:?}");
        }
        assert_eq!(counts(&pool, Policy::RoundRobin), [CALLS / 4; 4]);
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
        for _ in 0..2_000 {
            let member = pool.choose(Policy::PeakEwma, 0).unwrap();
            let flight = Flight::begin(&member.load);
            let slow = member.instance.id.as_str() == "i2";
            asked += usize::from(slow);
            advance(Duration::from_millis(if slow { 200 } else { 5 })).await;
            flight.succeeded();
        }
        // One of four would be 500; it is asked now and then, to see whether it is still slow.
        assert!((1..50).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_push_others_away() {
        let pool = pool(&[1; 2]);
        fastrand::seed(7);
        let flights: Vec<_> =
            (0..100).map(|_| Flight::begin(&pool.choose(Policy::PeakEwma, 0).unwrap().load)).collect();
        let (a, b) = (pool.members[0].load.cost(), pool.members[1].load.cost());
        assert!((a - b).abs() < 0.01 * a, "fifty each: {a} and {b}");
        drop(flights);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_an_instance_outlasts_a_change_of_the_list() {
        let before = pool(&[1; 2]);
        let flight = Flight::begin(&before.members[0].load);
        let snapshot =
            Snapshot::known(vec![Arc::new(instance("product", "i0")), Arc::new(instance("product", "i9"))], None);
        let after = Pool::new(&Arc::new(snapshot), &Nearness::default(), Some(&before));
        assert!(after.members[0].load.cost() > after.members[1].load.cost());
        drop(flight);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_stay_where_they_are() {
        let keys: Vec<String> = (0..CALLS).map(|n| format!("key-{n}")).collect();
        let homes =
            |pool: &Pool| -> Vec<String> { keys.iter().map(|key| id(pool.choose_for(key.as_bytes()))).collect() };
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
            let nearness = Nearness { zone: zone.map(Into::into), host: host.map(|host| host.parse().unwrap()) };
            pool_of(all(), &nearness).members.iter().map(|member| member.instance.id.to_string()).collect()
        };
        assert_eq!(ids(Some("b"), None), ["b", "c"]);
        assert_eq!(ids(Some("nowhere"), None), ["a", "b", "c"], "spills over");
        assert_eq!(ids(None, Some("10.0.0.3")), ["c"]);
        assert_eq!(ids(Some("a"), Some("10.0.0.3")), ["c"], "never another host");
        assert!(ids(None, Some("10.0.0.9")).is_empty());
    }
}
