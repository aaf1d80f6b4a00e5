//! What the subsets must be, judged from outside: from who has which before a call and after it.

mod laws;
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::InstanceId;
use tokio::time::Instant;

use super::{Full, Moved, Subsets, loads::Band, pairs::Lease};

const SECOND: Duration = Duration::from_secs(1);

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<InstanceId> {
    numbers.into_iter().map(|number| format!("i-{number}").parse().unwrap()).collect()
}

fn subsets(size: u32, limit: usize, settled: Instant) -> Subsets {
    Subsets::new(NonZeroU32::new(size).unwrap(), limit, 7, settled)
}

/// A service of `instances`, with `clients` that joined long after it was settled.
fn busy(size: u32, clients: usize, instances: usize, now: Instant) -> Subsets {
    let mut subsets = subsets(size, usize::MAX, now);
    subsets.update(&ids(0..instances), &[], now);
    for client in 0..clients {
        subsets.join(&format!("c-{client}"), &[], now).unwrap();
    }
    subsets
}

fn of(subsets: &Subsets, client: &str) -> BTreeSet<InstanceId> {
    subsets.of(client).unwrap().cloned().collect()
}

/// Who has which at a moment.
struct State {
    sets: BTreeMap<Arc<str>, BTreeSet<InstanceId>>,
    /// The loads, counted from the sets.
    loads: BTreeMap<InstanceId, u64>,
    held: BTreeSet<Arc<str>>,
    size: usize,
}

/// What a call moved, and what any call with its outcome would have had to move.
struct Cost {
    moves: u64,
    /// What clients lack because they are new or what they had is gone.
    placed: u64,
    /// What must move besides for loads to be even.
    forced: u64,
}

impl State {
    fn of(subsets: &Subsets) -> Self {
        let pairs = &subsets.pairs;
        let members = pairs.instances.iter();
        let mut loads: BTreeMap<_, _> = members.map(|(_, member)| (member.id.clone(), 0)).collect();
        let mut sets = BTreeMap::new();
        for (_, client) in pairs.clients.iter() {
            let set: Vec<_> = subsets.of(&client.name).unwrap().cloned().collect();
            set.iter().for_each(|id| *loads.get_mut(id).unwrap() += 1);
            let distinct: BTreeSet<_> = set.iter().cloned().collect();
            assert_eq!(distinct.len(), set.len(), "{} has one twice", client.name);
            sets.insert(Arc::clone(&client.name), distinct);
        }
        let held = |lease| matches!(lease, Lease::Held(_));
        let held = pairs.clients.iter().filter(|(_, client)| held(client.lease));
        let held = held.map(|(_, client)| Arc::clone(&client.name)).collect();
        let size = pairs.wanted();
        Self { sets, loads, held, size }
    }

    /// Whether everybody has enough, and what is kept from the other side agrees.
    fn check(&self, subsets: &Subsets) {
        for (client, set) in &self.sets {
            assert_eq!(set.len(), self.size, "{client} has too few or too many");
        }
        for (_, member) in subsets.pairs.instances.iter() {
            assert_eq!(self.loads[&member.id], member.clients.len() as u64, "{}", member.id);
        }
        let (least, most) = self.extremes();
        let spread = subsets.spread().map(|(least, most)| (u64::from(least), u64::from(most)));
        assert_eq!(spread, (!self.loads.is_empty()).then_some((least, most)));
        assert_eq!(subsets.pairs.count, self.pairs());
        assert_eq!(subsets.pairs.instances.iter().count(), self.loads.len(), "one is kept that is gone");
        assert!(subsets.pairs.before.is_empty() && subsets.pairs.retired.is_empty());
        assert_eq!(subsets.gone.len(), self.sets.len() - self.held.len());
    }

    /// Whether loads are as even as promised, without asking the code that makes them so.
    fn check_even(&self) {
        let (least, most) = self.extremes();
        let mean = self.pairs() as f64 / self.loads.len().max(1) as f64;
        assert!(most as f64 <= (1.05 * mean).ceil(), "{least} to {most} with a mean of {mean}");
        assert!(least as f64 >= (0.95 * mean).floor(), "{least} to {most} with a mean of {mean}");
        assert!(mean >= 20.0 || most - least <= 1, "{least} to {most} with a mean of {mean}");
        let rounded = most as f64 <= mean.ceil();
        assert!(rounded || most as f64 / mean <= 1.05, "{most} is above {mean}");
    }

    fn extremes(&self) -> (u64, u64) {
        let loads = || self.loads.values().copied();
        (loads().min().unwrap_or(0), loads().max().unwrap_or(0))
    }

    fn pairs(&self) -> u64 {
        self.sets.values().map(|set| set.len() as u64).sum()
    }

    /// What the way from here to `after` cost.
    fn cost(&self, after: &Self) -> Cost {
        let nothing = BTreeSet::new();
        let mut kept: BTreeMap<_, _> = after.loads.keys().map(|id| (id, 0)).collect();
        let (mut moves, mut placed) = (0, 0);
        for (client, set) in &after.sets {
            let had = self.sets.get(client).unwrap_or(&nothing);
            moves += set.difference(had).count() as u64;
            let still = had.iter().filter_map(|id| kept.get_mut(id).map(|load| *load += 1)).count();
            placed += (after.size - still) as u64;
        }
        let band = Band::of(after.pairs(), kept.len() as u64).unwrap_or(Band { least: 0, most: 0 });
        let (least, most) = (u64::from(band.least), u64::from(band.most));
        let above: u64 = kept.values().map(|load| u64::saturating_sub(*load, most)).sum();
        let below: u64 = kept.values().map(|load| least.saturating_sub(*load)).sum();
        Cost { moves, placed, forced: above.max(below.saturating_sub(placed)) }
    }

    /// Whether `moved` is what happened to those who are there.
    fn check_told(&self, after: &Self, moved: &[Moved]) {
        let nothing = BTreeSet::new();
        let mut told = BTreeMap::new();
        for Moved { client, gained, lost } in moved {
            let sets = (gained.iter().cloned().collect(), lost.iter().cloned().collect());
            assert!(told.insert(Arc::clone(client), sets).is_none(), "{client} is told twice");
        }
        let mut happened = BTreeMap::new();
        for (client, set) in after.sets.iter().filter(|(client, _)| after.held.contains(*client)) {
            let had = self.sets.get(client).unwrap_or(&nothing);
            let gained: BTreeSet<_> = set.difference(had).cloned().collect();
            let lost: BTreeSet<_> = had.difference(set).cloned().collect();
            if !gained.is_empty() || !lost.is_empty() {
                happened.insert(Arc::clone(client), (gained, lost));
            }
        }
        assert_eq!(told, happened);
    }
}

impl Cost {
    fn least(&self) -> u64 {
        self.placed + self.forced
    }

    fn check(&self) {
        let (moves, least) = (self.moves, self.least());
        assert!(moves <= 2 * least, "{moves} moved, {least} would have been enough");
        assert!(self.placed > 0 || moves == least, "{moves} moved for evenness alone, {least} had to");
    }
}

#[test]
fn a_client_that_comes_back_in_time_has_what_it_had() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    let had = of(&subsets, "c-7");
    subsets.leave("c-7", now + 10 * SECOND);
    assert_eq!(subsets.due(), Some(now + 10 * SECOND));
    assert_eq!(subsets.expire(now + 9 * SECOND), []);
    assert_eq!(subsets.join("c-7", &[], now + 9 * SECOND), Ok(vec![]));
    assert_eq!(subsets.due(), None);
    assert_eq!(subsets.expire(now + 99 * SECOND), []);
    assert_eq!(of(&subsets, "c-7"), had);
}

#[test]
fn a_client_that_stays_away_is_forgotten() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    subsets.leave("c-7", now + SECOND);
    subsets.leave("c-7", now + 5 * SECOND);
    subsets.leave("nobody", now);
    subsets.expire(now + SECOND);
    assert!(subsets.of("c-7").is_none());
    assert_eq!(subsets.len(), 49);
    State::of(&subsets).check_even();
}

#[test]
fn two_clients_of_one_name_share_a_set() {
    let now = Instant::now();
    let mut subsets = busy(5, 50, 40, now);
    let had = of(&subsets, "c-7");
    assert_eq!(subsets.join("c-7", &ids(0..5), now), Ok(vec![]));
    subsets.leave("c-7", now);
    assert_eq!(subsets.expire(now + SECOND), []);
    assert_eq!(of(&subsets, "c-7"), had);
    subsets.leave("c-7", now + SECOND);
    subsets.expire(now + SECOND);
    assert!(subsets.of("c-7").is_none());
}

#[test]
fn whoever_asks_for_more_than_there_are_gets_all() {
    let now = Instant::now();
    let mut subsets = busy(20, 3, 8, now);
    assert_eq!(of(&subsets, "c-1"), ids(0..8).into_iter().collect());
    let moved = subsets.update(&ids([8]), &ids([0]), now);
    assert_eq!(moved.len(), 3);
    assert!(moved.iter().all(|moved| moved.gained == ids([8]) && moved.lost == ids([0])));
    subsets.update(&[], &ids(0..9), now);
    assert_eq!(subsets.spread(), None);
    assert!(of(&subsets, "c-1").is_empty());
    subsets.update(&ids(0..30), &[], now);
    assert_eq!(of(&subsets, "c-1").len(), 20);
}

#[test]
fn what_is_known_already_changes_nothing() {
    let now = Instant::now();
    let mut subsets = busy(3, 10, 10, now);
    assert_eq!(subsets.update(&ids(0..10), &ids(20..30), now), []);
    assert_eq!(subsets.update(&ids(5..40), &ids(5..40), now).len(), 10, "30 came");
    assert_eq!(subsets.update(&ids([1]), &ids([1]), now), []);
}

#[test]
fn a_crowd_is_refused_until_somebody_is_gone() {
    let now = Instant::now();
    let mut subsets = subsets(3, 4, now);
    subsets.update(&ids(0..9), &[], now);
    for client in ["a", "b", "c", "d"] {
        subsets.join(client, &[], now).unwrap();
    }
    let refusal = subsets.join("e", &[], now).unwrap_err();
    assert_eq!(refusal, Full { limit: 4 });
    assert!(refusal.to_string().starts_with("4 clients have a subset of this service"));
    subsets.join("a", &[], now).unwrap();
    subsets.leave("c", now + 20 * SECOND);
    subsets.leave("b", now + 10 * SECOND);
    subsets.join("e", &[], now).unwrap();
    assert!(subsets.of("b").is_none(), "b was to be forgotten before c");
    assert!(subsets.of("c").is_some());
    State::of(&subsets).check(&subsets);
}

#[test]
fn after_a_restart_everybody_gets_back_what_it_had() {
    let now = Instant::now();
    let old = busy(20, 300, 1_000, now);
    let settled = now + 30 * SECOND;
    let mut new = subsets(20, usize::MAX, settled);
    new.update(&ids(0..1_000), &[], now);
    for client in (0..300).map(|number| format!("c-{}", number * 7 % 300)) {
        let had: Vec<_> = old.of(&client).unwrap().cloned().collect();
        new.join(&client, &had, now).unwrap();
    }
    assert_eq!(new.due(), Some(settled));
    assert_eq!(new.expire(settled), []);
    assert_eq!(new.due(), None);
    assert_eq!(State::of(&new).sets, State::of(&old).sets);
}

#[test]
fn what_clients_claim_to_have_had_does_not_stay_uneven() {
    let now = Instant::now();
    let settled = now + 30 * SECOND;
    let mut subsets = subsets(5, usize::MAX, settled);
    subsets.update(&ids(0..50), &[], now);
    for client in 0..40 {
        subsets.join(&format!("c-{client}"), &ids(0..9), now).unwrap();
    }
    assert_eq!(subsets.spread(), Some((0, 40)));
    subsets.leave("c-0", now);
    assert_eq!(subsets.expire(settled).len(), 39);
    State::of(&subsets).check_even();
    subsets.join("late", &ids(0..9), settled).unwrap();
    State::of(&subsets).check_even();
}

#[test]
fn a_settled_service_takes_over_what_balance_allows() {
    let now = Instant::now();
    let mut subsets = busy(5, 100, 50, now);
    let before = State::of(&subsets);
    let wanted = ids(10..15);
    subsets.join("late", &wanted, now).unwrap();
    assert_eq!(of(&subsets, "late"), wanted.into_iter().collect(), "each had ten, and eleven is even");
    subsets.join("later", &ids(10..15), now).unwrap();
    assert_eq!(before.cost(&State::of(&subsets)).moves, 10, "nobody else had to move");
    State::of(&subsets).check_even();
}

#[test]
fn ties_are_broken_by_hashes_and_not_by_order() {
    let now = Instant::now();
    let (mut up, mut down) = (subsets(5, 100, now), subsets(5, 100, now));
    let mut reversed = ids(0..200);
    up.update(&reversed, &[], now);
    reversed.reverse();
    down.update(&reversed, &[], now);
    for client in (0..90).map(|number| format!("c-{number}")) {
        up.join(&client, &[], now).unwrap();
        down.join(&client, &[], now).unwrap();
    }
    up.update(&ids(200..230), &ids(3..70), now);
    let (mut added, mut removed) = (ids(200..230), ids(3..70));
    added.reverse();
    removed.reverse();
    down.update(&added, &removed, now);
    assert_eq!(State::of(&up).sets, State::of(&down).sets);
    let mut other = Subsets::new(NonZeroU32::new(5).unwrap(), 100, 8, now);
    other.update(&ids(0..200), &[], now);
    other.join("c-0", &[], now).unwrap();
    assert_ne!(of(&other, "c-0"), of(&busy(5, 1, 200, now), "c-0"), "the seed counts");
}
