//! One service at one moment, and whose turn it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use roundsman_protocol::{InstanceStatus, ServiceName, ServiceSummary};

use crate::{edit::Effect, record::Record};

/// One service at one moment. Immutable.
#[derive(Debug)]
pub struct View {
    /// All records, those on probation included, sorted by id.
    pub records: Box<[Arc<Record>]>,
    /// Those that lookups hand out.
    pub available: Box<[Arc<Record>]>,
    /// How many are in which status.
    pub summary: ServiceSummary,
    /// Running sums of the weights in `available`; empty when all weigh the same.
    sums: Box<[u64]>,
}

/// Where a service's current view is found, and whose turn it is across views.
#[derive(Debug)]
pub(crate) struct Cell {
    view: ArcSwap<View>,
    turn: AtomicU64,
}

// === impl View ===

impl View {
    fn new(name: ServiceName, records: Vec<Arc<Record>>) -> Self {
        let available: Box<[_]> = records.iter().filter(|r| r.status().is_available()).cloned().collect();
        let summary = summarise(name, &records);
        Self { records: records.into(), sums: running_sums(&available), available, summary }
    }

    /// Who has this turn: in rotation when all weigh the same, otherwise each as often as its weight says,
    /// spread over the turns and not in blocks.
    fn pick(&self, turn: u64) -> Option<&Arc<Record>> {
        let Some(&total) = self.sums.last() else {
            let count = u64::try_from(self.available.len()).ok().filter(|count| *count > 0)?;
            return self.available.get(usize::try_from(turn % count).ok()?);
        };
        // Multiples of the golden ratio modulo 1 never cluster: after any number of turns each share is met.
        let fraction = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let point = (u128::from(fraction) * u128::from(total)) >> 64;
        let index = self.sums.partition_point(|sum| u128::from(*sum) <= point);
        self.available.get(index)
    }

    /// The view after some effects on this service.
    fn after(&self, effects: &[&Effect]) -> Self {
        let name = &self.summary.name;
        let mut records = self.records.to_vec();
        let here = |record: &&Arc<Record>| record.instance.name == *name;
        if effects.len() > 8 {
            return Self::new(name.clone(), rebuilt(records, effects, here));
        }
        for effect in effects {
            if let Some(before) = effect.before.as_ref().filter(here)
                && let Ok(at) = position(&records, before)
            {
                records.remove(at);
            }
            if let Some(after) = effect.after.as_ref().filter(here) {
                let at = position(&records, after).unwrap_or_else(|at| at);
                records.insert(at, Arc::clone(after));
            }
        }
        Self::new(name.clone(), records)
    }
}

fn position(records: &[Arc<Record>], record: &Record) -> Result<usize, usize> {
    records.binary_search_by(|other| other.instance.id.cmp(&record.instance.id))
}

/// For many effects at once: inserting each in its place would take quadratic time.
fn rebuilt(records: Vec<Arc<Record>>, effects: &[&Effect], here: impl Fn(&&Arc<Record>) -> bool) -> Vec<Arc<Record>> {
    let mut by_id: std::collections::BTreeMap<_, _> =
        records.into_iter().map(|record| (record.instance.id.clone(), record)).collect();
    for effect in effects {
        if let Some(before) = effect.before.as_ref().filter(&here) {
            by_id.remove(&before.instance.id);
        }
        if let Some(after) = effect.after.as_ref().filter(&here) {
            by_id.insert(after.instance.id.clone(), Arc::clone(after));
        }
    }
    by_id.into_values().collect()
}

fn running_sums(available: &[Arc<Record>]) -> Box<[u64]> {
    let mut weights = available.iter().map(|record| u64::from(record.instance.weight));
    let first = weights.next();
    if weights.all(|weight| Some(weight) == first) {
        return Box::default();
    }
    let mut sum = 0;
    let weights = available.iter().map(|record| u64::from(record.instance.weight));
    weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

fn summarise(name: ServiceName, records: &[Arc<Record>]) -> ServiceSummary {
    let count = |status: InstanceStatus| {
        u32::try_from(records.iter().filter(|record| record.status() == status).count()).unwrap_or(u32::MAX)
    };
    let (passing, suspect) = (count(InstanceStatus::Passing), count(InstanceStatus::Suspect));
    let (starting, draining) = (count(InstanceStatus::Starting), count(InstanceStatus::Draining));
    let evicted = count(InstanceStatus::Evicted);
    ServiceSummary {
        name,
        instances: passing + suspect + starting + draining,
        passing,
        suspect,
        starting,
        draining,
        evicted,
    }
}

// === impl Cell ===

impl Cell {
    pub(crate) fn new(name: ServiceName) -> Self {
        Self { view: ArcSwap::from_pointee(View::new(name, Vec::new())), turn: AtomicU64::new(0) }
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    pub(crate) fn current(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The record whose turn it is.
    pub(crate) fn next(&self) -> Option<Arc<Record>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.view.load().pick(turn).cloned()
    }

    /// Shows the effects. Returns whether any record is left.
    pub(crate) fn show(&self, effects: &[&Effect]) -> bool {
        let view = self.view.load().after(effects);
        let left = !view.records.is_empty();
        self.view.store(Arc::new(view));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Health, Key};
    use roundsman_protocol::{Registration, Timestamp};

    fn view(weights: &[u32]) -> View {
        let records = weights.iter().enumerate().map(|(n, weight)| {
            let mut registration =
                Registration::new("a".parse().unwrap(), format!("10.0.0.1:{}", n + 1).parse().unwrap());
            registration.weight = *weight;
            let key = Key { namespace: "default".parse().unwrap(), id: format!("a-{n:03}").parse().unwrap() };
            let record = Record::registered(&key, &registration, 1, Timestamp::default());
            Arc::new(record.flipped(Health::Passing, false, "".into(), Timestamp::default()))
        });
        View::new("a".parse().unwrap(), records.collect())
    }

    fn shares(view: &View, turns: u64) -> Vec<u64> {
        let mut counts = vec![0; view.available.len()];
        for turn in 0..turns {
            let picked = view.pick(turn).unwrap();
            counts[position(&view.available, picked).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn equals_take_turns() {
        assert_eq!(shares(&view(&[1, 1, 1]), 300), [100, 100, 100]);
        assert_eq!(shares(&view(&[7]), 5), [5]);
        assert!(view(&[]).pick(3).is_none());
    }

    #[test]
    fn weights_are_met_at_every_scale() {
        for turns in [10, 100, 1_000, 10_000] {
            let counts = shares(&view(&[1, 3, 6]), turns);
            for (count, weight) in counts.iter().zip([1, 3, 6]) {
                let due = turns * weight / 10;
                assert!(count.abs_diff(due) <= 3, "{turns} turns: {counts:?}");
            }
        }
        assert_eq!(shares(&view(&[10_000, 1]), 10_001)[1], 1);
    }
}
