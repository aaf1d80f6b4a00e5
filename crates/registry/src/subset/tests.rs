//! What the subsets must be, judged from outside: from who has which before a call and after it.

mod calls;
mod laws;
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::InstanceId;
use tokio::time::Instant;

use super::{Moved, Subsets, loads::Band, pairs::Lease};

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
    loads: HashMap<InstanceId, u64>,
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
        let mut loads: HashMap<_, _> = members.map(|(_, member)| (member.id.clone(), 0)).collect();
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
        let mut kept: HashMap<_, _> = after.loads.keys().map(|id| (id, 0)).collect();
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
