//! Held against a map that does everything the slow way.

use std::collections::BTreeMap;

use proptest::prelude::*;
use roundsman_protocol::{InstanceId, Registration, Scope, Timestamp};

use super::*;
use crate::{Health, Key, Record};

type Model = BTreeMap<InstanceId, Arc<Record>>;

fn id(n: u16) -> InstanceId {
    format!("i-{n:05}").parse().unwrap()
}

fn record(n: u16, weight: u32, health: Health) -> Arc<Record> {
    let registration =
        Registration { weight, ..Registration::new("a".parse().unwrap(), "10.0.0.1:1".parse().unwrap()) };
    let key = Key { namespace: "default".parse().unwrap(), id: id(n) };
    let record = Record::registered(&key, &registration, 1, Timestamp::default());
    Arc::new(record.seen(health, "".into(), "".into(), Timestamp::default()))
}

/// A batch: mostly small, at times large; puts or removals, all over the place or side by side.
fn batches() -> impl Strategy<Value = Vec<(u16, Option<(u32, Health)>)>> {
    let health = prop_oneof![
        4 => Just(Health::Passing), 1 => Just(Health::Suspect), 1 => Just(Health::Starting), 1 => Just(Health::Evicted)
    ];
    let weight = prop_oneof![3 => Just(1_u32), 1 => 1..4_u32];
    let put = proptest::option::weighted(0.6, (weight.clone(), health.clone()));
    let few = proptest::collection::vec((0..2_000_u16, put.clone()), 0..6);
    let many = proptest::collection::vec((0..2_000_u16, put), 0..900);
    let stretch = (0..2_000_u16, 0..700_u16, proptest::option::weighted(0.5, (weight, health)));
    let stretch = stretch.prop_map(|(from, len, put)| (from..from + len).map(|n| (n, put)).collect());
    prop_oneof![4 => few, 1 => many, 2 => stretch]
}

/// How deep it is; all leaves are at the same depth, no node is empty or too full, and all sums are right.
fn depth<T: Member>(node: &Node<T>) -> (usize, Tally) {
    match node {
        Node::Leaf(leaf) => {
            assert!(leaf.members.len() <= leaf::MOST);
            let mut tally = Tally::default();
            leaf.members.iter().for_each(|member| tally.add(&member.tally()));
            (1, tally)
        }
        Node::Branch(children) => {
            assert!((1..=branch::MOST).contains(&children.len()));
            let (mut tally, mut depths) = (Tally::default(), Vec::new());
            for child in &**children {
                let (depth, sums) = depth(&child.node);
                assert_eq!(sums, child.tally);
                assert!(!child.node.is_small(), "it has neighbours to be joined with");
                tally.add(&sums);
                depths.push(depth);
            }
            assert!(depths.iter().all(|depth| *depth == depths[0]));
            (depths[0] + 1, tally)
        }
    }
}

fn agree(roster: &Roster<Arc<Record>>, model: &Model) {
    let (depth, tally) = depth(&roster.root);
    assert_eq!(&tally, roster.tally());
    assert!(depth <= 8, "{depth} for {}", model.len());
    assert!(roster.iter().map(|record| record.key()).eq(model.keys()));
    assert!(roster.iter().zip(model.values()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!((tally.len(), roster.is_empty()), (model.len(), model.is_empty()));
    for scope in [Scope::Available, Scope::Registered, Scope::All] {
        let inside: Vec<u64> = model.values().filter(|r| scope.includes(r.status())).map(|r| r.fingerprint).collect();
        let sum = inside.iter().fold(0_u64, |sum, hash| sum.wrapping_add(*hash));
        assert_eq!(tally.in_scope(scope), (inside.len() as u64, sum));
    }
    assert_eq!(tally.bytes(), model.values().map(|record| record.bytes()).sum::<usize>());
    let handed: Vec<_> = model.values().filter(|record| record.share().is_some()).collect();
    assert_eq!(tally.is_even(), handed.windows(2).all(|pair| pair[0].share() == pair[1].share()));
    assert_eq!((roster.available(), roster.is_even()), (tally.available(), tally.is_even()));
    for (n, record) in handed.iter().enumerate() {
        assert!(Arc::ptr_eq(roster.nth(u32::try_from(n).unwrap()).unwrap(), record));
    }
    assert!(roster.nth(u32::try_from(handed.len()).unwrap()).is_none());
    let mut point = 0;
    for record in handed {
        let weight = u64::from(record.share().unwrap());
        for point in [point, point + weight - 1] {
            assert!(Arc::ptr_eq(roster.at(point).unwrap(), record), "{point}");
        }
        point += weight;
    }
    assert!(roster.at(point).is_none());
    for n in (0..2_800).step_by(97) {
        let key = id(n);
        assert_eq!(roster.get(&key).map(Arc::as_ptr), model.get(&key).map(Arc::as_ptr));
        assert!(roster.from(&key).map(|r| r.key()).eq(model.range(key.clone()..).map(|(id, _)| id)));
        let beyond = model.range((std::ops::Bound::Excluded(key.clone()), std::ops::Bound::Unbounded));
        assert!(roster.beyond(&key).map(|r| r.key()).eq(beyond.map(|(id, _)| id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn does_what_a_map_does(batches in proptest::collection::vec(batches(), 1..24)) {
        let (mut roster, mut model) = (Roster::default(), Model::new());
        for batch in batches {
            let (before, known) = (roster.clone(), model.clone());
            let mut puts = Vec::new();
            for (n, put) in batch {
                let member = put.map(|(weight, health)| record(n, weight, health));
                match &member {
                    Some(record) => drop(model.insert(id(n), Arc::clone(record))),
                    None => drop(model.remove(&id(n))),
                }
                puts.push(Put { key: id(n), member });
            }
            in_order(&mut puts);
            roster = before.after(&puts);
            agree(&roster, &model);
            prop_assert!(before.iter().map(Arc::as_ptr).eq(known.values().map(Arc::as_ptr)), "nothing changes it");
        }
    }
}

#[test]
fn grows_and_shrinks_one_by_one() {
    let (mut roster, mut model) = (Roster::default(), Model::new());
    for n in 0..2_000 {
        let record = record(n * 7 % 2_000, 1, Health::Passing);
        model.insert(record.key().clone(), Arc::clone(&record));
        roster = roster.after(&[Put { key: record.key().clone(), member: Some(record) }]);
    }
    agree(&roster, &model);
    for n in 0..2_000 {
        let key = id(n * 3 % 2_000);
        model.remove(&key);
        roster = roster.after(&[Put { key, member: None }]);
        if n % 331 == 0 {
            agree(&roster, &model);
        }
    }
    assert!(roster.is_empty() && roster.nth(0).is_none() && roster.at(0).is_none());
}

#[test]
fn a_change_leaves_nearly_all_of_it_shared() {
    let all = (0..10_000).map(|n| record(n, 1, Health::Passing));
    let roster: Roster<_> = all.collect();
    let (put, key) = (record(5_000, 1, Health::Evicted), id(5_000));
    let after = roster.after(&[Put { key, member: Some(put) }]);
    let leaves = |roster: &Roster<Arc<Record>>| {
        let (mut nodes, mut leaves) = (vec![roster.root.clone()], Vec::new());
        while let Some(node) = nodes.pop() {
            match node {
                Node::Leaf(leaf) => leaves.push(leaf.members.as_ptr().cast::<()>()),
                Node::Branch(children) => nodes.extend(children.iter().map(|child| child.node.clone())),
            }
        }
        leaves
    };
    let (before, after) = (leaves(&roster), leaves(&after));
    assert_eq!(before.len(), after.len());
    assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1);
}
