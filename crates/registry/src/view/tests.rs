//! Whose turn it is, few or many, and what digests are told.

use roundsman_protocol::{Digest, Instance, InstanceStatus, Registration, Scope, Timestamp};

use super::*;
use crate::{Health, Key};

fn record(n: usize, weight: u32, health: Health) -> Arc<Record> {
    let mut registration =
        Registration::new("a".parse().unwrap(), format!("10.0.0.1:{}", n % 65_000 + 1).parse().unwrap());
    registration.weight = weight;
    let key = Key { namespace: "default".parse().unwrap(), id: format!("a-{n:06}").parse().unwrap() };
    let record = Record::registered(&key, &registration, 1, Timestamp::default());
    Arc::new(record.seen(health, "".into(), "".into(), Timestamp::default()))
}

fn view(records: impl Iterator<Item = Arc<Record>>) -> View {
    View { records: records.collect(), ..View::new("a".parse().unwrap()) }
}

fn weighing(weights: &[u32]) -> View {
    view(weights.iter().enumerate().map(|(n, weight)| record(n, *weight, Health::Passing)))
}

/// How often each of the records is picked in so many turns.
fn shares(view: &View, turns: u64) -> Vec<u64> {
    let all: Vec<_> = view.records.iter().collect();
    let mut counts = vec![0; all.len()];
    for turn in 0..turns {
        let picked = view.pick(turn).unwrap();
        assert!(picked.status().is_available());
        counts[all.binary_search_by(|known| known.key().cmp(picked.key())).unwrap()] += 1;
    }
    counts
}

#[test]
fn equals_take_turns() {
    assert_eq!(shares(&weighing(&[1, 1, 1]), 300), [100, 100, 100]);
    assert_eq!(shares(&weighing(&[7]), 5), [5]);
    assert!(weighing(&[]).pick(3).is_none());
}

#[test]
fn ten_thousand_equals_take_turns_and_those_out_of_it_get_none() {
    let health = |n: usize| if n.is_multiple_of(3) { Health::Evicted } else { Health::Suspect };
    let view = view((0..10_000).map(|n| record(n, 5, health(n))));
    let counts = shares(&view, 3 * 6_666);
    for (n, count) in counts.iter().enumerate() {
        assert_eq!(*count, if n.is_multiple_of(3) { 0 } else { 3 }, "{n}");
    }
}

#[test]
fn weights_are_met_at_every_scale() {
    for turns in [10, 100, 1_000, 10_000] {
        let counts = shares(&weighing(&[1, 3, 6]), turns);
        for (count, weight) in counts.iter().zip([1, 3, 6]) {
            let due = turns * weight / 10;
            assert!(count.abs_diff(due) <= 3, "{turns} turns: {counts:?}");
        }
    }
    assert_eq!(shares(&weighing(&[10_000, 1]), 10_001)[1], 1);
}

#[test]
fn weights_are_met_by_ten_thousand() {
    // Stretches of equals beside stretches of others, so that leaves of both kinds are met.
    let weight = |n: usize| if n < 5_000 { 2 } else { 1 + u32::try_from(n % 7).unwrap() };
    let weights: Vec<u32> = (0..10_000).map(weight).collect();
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let counts = shares(&weighing(&weights), 10 * total);
    for (n, (count, weight)) in counts.iter().zip(weights).enumerate() {
        assert!(count.abs_diff(10 * u64::from(weight)) <= 3, "{n}: {count} of {weight}");
    }
}

#[test]
fn a_weight_that_changes_back_makes_equals_again() {
    let view = weighing(&[1; 100]);
    let put = |weight| {
        [Put { key: record(40, 1, Health::Passing).key().clone(), member: Some(record(40, weight, Health::Passing)) }]
    };
    let other = view.after(&put(9), 1);
    assert!(!other.records.tally().is_even());
    let counts = shares(&other, 10_800);
    assert!(counts[40].abs_diff(900) <= 3 && counts[41].abs_diff(100) <= 3, "{counts:?}");
    assert_eq!(shares(&other.after(&put(1), 2), 200), [2; 100]);
}

#[test]
fn parts_once_asked_for_are_kept_up() {
    let mut view = view((0..1_000).map(|n| record(n, 1, Health::Passing)));
    let digest = |view: &View, scope| {
        let mut digest = Digest::default();
        view.add_to(&mut digest, scope);
        digest
    };
    for round in 0..20 {
        for scope in [Scope::Available, Scope::Registered, Scope::All] {
            let instances: Vec<&Instance> =
                view.records.iter().map(|record| &*record.instance).filter(|i| scope.includes(i.status)).collect();
            assert_eq!(digest(&view, scope), Digest::of(instances), "round {round}");
        }
        assert!(view.parts.get().is_some());
        let health = if round % 2 == 0 { Health::Evicted } else { Health::Starting };
        let mut puts: Vec<_> = (0..3).map(|n| record(round * 31 + n, 1, health)).collect();
        puts.push(record(2_000 + round, 1, health));
        let mut puts: Vec<_> =
            puts.into_iter().map(|record| Put { key: record.key().clone(), member: Some(record) }).collect();
        puts.push(Put { key: record(900 + round, 1, health).key().clone(), member: None });
        crate::roster::in_order(&mut puts);
        view = view.after(&puts, 0);
    }
    assert_eq!(view.summary().evicted + view.summary().starting, 80);
    assert!(view.records.iter().any(|record| record.status() == InstanceStatus::Evicted));
}
