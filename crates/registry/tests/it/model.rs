//! Any sequence of registrations, observations, drains and removals leaves lookups, change log and watches agreeing
//! with a model that does everything the slow way.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use roundsman_protocol::{
    Cursor, Instance, InstanceId, InstanceStatus, Namespace, Patch, Query, Registration, Scope, ServiceName, Timestamp,
};
use roundsman_registry::{Draft, Edit, Health, Key, Limits, Registry};

const LOG_CAPACITY: usize = 8;
const LOG_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Register {
        id: Option<u8>,
        service: u8,
        port: u16,
        tagged: bool,
        again: bool,
    },
    Deregister {
        id: u8,
    },
    Drain {
        id: u8,
        on: bool,
        operator: bool,
    },
    /// Keeps an id out, or ends that.
    Block {
        id: u8,
        on: bool,
    },
    Update {
        id: u8,
        tagged: bool,
    },
    Observe {
        id: u8,
        health: Health,
        stale: bool,
    },
    Look {
        watcher: usize,
    },
}

/// What the model knows of an instance.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    service: u8,
    port: u16,
    tagged: bool,
    draining: bool,
    held: bool,
    blocked: bool,
    health: Health,
}

/// A watcher that keeps its own copy by what it is told.
struct Watcher {
    query: Query,
    cursor: Option<Cursor>,
    copy: BTreeMap<InstanceId, Arc<Instance>>,
}

fn namespace() -> Namespace {
    "default".parse().unwrap()
}

fn id(number: u8) -> InstanceId {
    format!("i-{number}").parse().unwrap()
}

fn service(number: u8) -> ServiceName {
    format!("s{number}").parse().unwrap()
}

fn key(number: u8) -> Key {
    Key { namespace: namespace(), id: id(number) }
}

fn registration(number: u8, name: u8, port: u16, tagged: bool) -> Registration {
    let mut registration = Registration::new(service(name), format!("10.0.0.1:{port}").parse().unwrap());
    registration.id = Some(id(number));
    registration.tags = if tagged { vec!["blue".into()] } else { Vec::new() };
    registration
}

fn steps() -> impl Strategy<Value = Step> {
    let health =
        prop_oneof![Just(Health::Passing), Just(Health::Suspect), Just(Health::Evicted), Just(Health::Passing)];
    prop_oneof![
        4 => (proptest::option::weighted(0.9, 0..6_u8), 0..3_u8, 1..5_u16, any::<bool>(), any::<bool>())
            .prop_map(|(id, service, port, tagged, again)| Step::Register { id, service, port, tagged, again }),
        1 => (0..6_u8).prop_map(|id| Step::Deregister { id }),
        1 => (0..6_u8, any::<bool>(), any::<bool>()).prop_map(|(id, on, operator)| Step::Drain { id, on, operator }),
        1 => (0..6_u8, proptest::bool::weighted(0.4)).prop_map(|(id, on)| Step::Block { id, on }),
        1 => (0..6_u8, any::<bool>()).prop_map(|(id, tagged)| Step::Update { id, tagged }),
        5 => (0..6_u8, health, proptest::bool::weighted(0.1))
            .prop_map(|(id, health, stale)| Step::Observe { id, health, stale }),
        3 => (0..4_usize).prop_map(|watcher| Step::Look { watcher }),
    ]
}

fn watchers() -> Vec<Watcher> {
    let all = Query { scope: Scope::All, ..Query::default() };
    let one = Query::service(service(1));
    let two = Query { services: vec![service(0), service(2)], scope: Scope::Registered, ..Query::default() };
    let blue = Query { tags: vec!["blue".into()], ..Query::default() };
    [all, one, two, blue].map(|query| Watcher { query, cursor: None, copy: BTreeMap::new() }).into()
}

fn list(registry: &Registry, query: &Query) -> Vec<Arc<Instance>> {
    registry.snapshot(&namespace(), query).matching(query).collect()
}

fn status(known: &Known) -> InstanceStatus {
    match known.health {
        _ if known.blocked => InstanceStatus::Evicted,
        Health::Evicted => InstanceStatus::Evicted,
        _ if known.draining => InstanceStatus::Draining,
        Health::Starting => InstanceStatus::Starting,
        Health::Passing => InstanceStatus::Passing,
        Health::Suspect => InstanceStatus::Suspect,
    }
}

/// Does a step to the model; the ids that the registry makes up are added by `Check`.
fn step_model(model: &mut BTreeMap<u8, Known>, step: &Step) {
    match step {
        Step::Register { id: Some(id), service, port, tagged, again } => {
            let fresh = Known {
                service: *service,
                port: *port,
                tagged: *tagged,
                draining: false,
                held: false,
                blocked: false,
                health: Health::Starting,
            };
            if model.get(id).is_some_and(|known| known.service != *service || known.blocked) {
                return;
            }
            let is_there = |other: &u8, known: &Known| {
                other != id && known.service == *service && known.port == *port && !known.blocked
            };
            if *again && model.iter().any(|(other, known)| is_there(other, known) && known.health != Health::Evicted) {
                return;
            }
            model.retain(|other, known| !is_there(other, known));
            let known = model.entry(*id).or_insert(fresh.clone());
            if known.port != *port {
                *known = Known { draining: known.held, held: known.held, ..fresh };
            } else if known.health == Health::Evicted {
                *known = Known { draining: known.draining, held: known.held, ..fresh };
            }
            known.tagged = *tagged;
        }
        Step::Register { id: None, .. } | Step::Look { .. } => {}
        Step::Deregister { id } => {
            if model.get(id).is_some_and(|known| !known.blocked) {
                model.remove(id);
            }
        }
        Step::Drain { id, on, operator } => {
            if let Some(known) = model.get_mut(id).filter(|known| !known.blocked && (*on || *operator || !known.held)) {
                (known.draining, known.held) = (*on, *on && (*operator || known.held));
            }
        }
        Step::Block { id, on: true } => {
            if let Some(known) = model.get_mut(id) {
                (known.blocked, known.health) = (true, Health::Evicted);
            }
        }
        // A block ends, and nothing else does.
        Step::Block { id, on: false } => {
            if model.get(id).is_some_and(|known| known.blocked) {
                model.remove(id);
            }
        }
        Step::Update { id, tagged } => {
            if let Some(known) = model.get_mut(id).filter(|known| !known.blocked) {
                known.tagged = *tagged;
            }
        }
        Step::Observe { id, health, stale } => {
            if let Some(known) = model.get_mut(id).filter(|_| !stale) {
                known.health = *health;
            }
        }
    }
}

/// Plans a step; whether it is one that is planned.
fn plan(draft: &mut Draft<'_>, step: &Step, now: Timestamp) -> bool {
    match step {
        Step::Register { id: Some(id), service, port, tagged, again } => {
            let registration = Registration { again: *again, ..registration(*id, *service, *port, *tagged) };
            let _ = draft.register(&namespace(), Arc::new(registration), now);
        }
        Step::Deregister { id } => drop(draft.deregister(key(*id), now)),
        Step::Drain { id, on, operator: false } => drop(draft.drain(key(*id), *on, now)),
        Step::Drain { id, on, operator: true } => drop(draft.hold(key(*id), *on, now)),
        Step::Block { id, on } => {
            let until = if *on { Timestamp::MAX } else { Timestamp::default() };
            drop(draft.block(key(*id), until, &"somebody".into(), now));
        }
        Step::Update { id, tagged } => {
            let blue = vec!["blue".into()];
            let (tags, untag) = if *tagged { (blue, Vec::new()) } else { (Vec::new(), blue) };
            drop(draft.update(key(*id), &Patch { tags, untag, ..Patch::default() }, now));
        }
        Step::Register { id: None, .. } | Step::Observe { .. } | Step::Look { .. } => return false,
    }
    true
}

fn step_registry(registry: &Registry, step: &Step, now: Timestamp) {
    let mut draft = registry.draft(Limits::default());
    if let Step::Observe { id, health, stale } = step {
        let Some(record) = registry.find(&key(*id)) else { return };
        let incarnation = if *stale { record.asked.incarnation - 1 } else { record.asked.incarnation };
        let reason = format!("{health:?}").into();
        let (key, by) = (key(*id), "here".into());
        registry.apply(&[Edit::Observe { key, incarnation, health: *health, reason, by, at: now }]);
    }
    plan(&mut draft, step, now);
    let (edits, _) = draft.finish(Timestamp::default());
    registry.apply(&edits);
}

fn agree(registry: &Registry, model: &BTreeMap<u8, Known>) {
    let all = list(registry, &Query { scope: Scope::All, ..Query::default() });
    let listed: BTreeMap<InstanceId, (String, u16, bool, InstanceStatus)> = all
        .iter()
        .map(|i| (i.id.clone(), (i.name.to_string(), i.address.port(), !i.tags.is_empty(), i.status)))
        .collect();
    let expected = model
        .iter()
        .map(|(number, k)| (id(*number), (service(k.service).to_string(), k.port, k.tagged, status(k))))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(registry.len(), model.len());
    for number in 0..3 {
        let mine = || model.values().filter(|known| known.service == number);
        let available = mine().filter(|known| status(known).is_available()).count();
        match registry.get(&namespace(), &service(number)) {
            Ok(record) => assert!(available > 0 && record.status().is_available()),
            Err(_) => assert_eq!(available, 0),
        }
        let summary = registry.services(&namespace()).into_iter().find(|summary| summary.name == service(number));
        assert_eq!(summary.is_some(), mine().count() > 0);
        let evicted = mine().filter(|known| status(known) == InstanceStatus::Evicted).count();
        assert_eq!(summary.map_or(0, |summary| summary.evicted as usize), evicted);
    }
}

impl Watcher {
    fn look(&mut self, registry: &Registry) {
        let update = registry.look(&namespace(), &self.query, self.cursor).update(&self.query);
        if update.snapshot {
            self.copy.clear();
            assert!(update.removed.is_empty());
        }
        for removed in &update.removed {
            assert!(self.copy.remove(&removed.id).is_some(), "told to remove what it was never told of");
        }
        for instance in &update.instances {
            let before = self.copy.insert(instance.id.clone(), Arc::clone(instance));
            assert!(before.as_ref() != Some(instance), "told what it knew already");
        }
        self.cursor = Some(update.cursor);
        let listed = list(registry, &self.query);
        let listed: BTreeMap<_, _> = listed.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
        assert_eq!(self.copy, listed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn registry_log_and_watches_agree_with_the_model(steps in proptest::collection::vec(steps(), 1..80)) {
        let registry = Registry::with_logs(7, LOG_CAPACITY, LOG_BYTES);
        let mut model = BTreeMap::new();
        let mut watchers = watchers();
        for (n, step) in steps.iter().enumerate() {
            step_registry(&registry, step, Timestamp::from_millis(n as u64));
            step_model(&mut model, step);
            agree(&registry, &model);
            if let Step::Look { watcher } = step {
                watchers[*watcher].look(&registry);
            }
        }
        for watcher in &mut watchers {
            watcher.look(&registry);
            prop_assert!(registry.look(&namespace(), &watcher.query, watcher.cursor).update(&watcher.query).is_unchanged());
        }
    }

    #[test]
    fn a_batch_does_what_its_steps_do_one_by_one(steps in proptest::collection::vec(steps(), 1..40)) {
        let (batched, single) = (Registry::new(1), Registry::new(1));
        let mut draft = batched.draft(Limits::default());
        for step in &steps {
            if !plan(&mut draft, step, Timestamp::default()) {
                continue;
            }
            step_registry(&single, step, Timestamp::default());
        }
        let (edits, changes) = draft.finish(Timestamp::default());
        batched.apply(&edits);
        let all = Query { scope: Scope::All, ..Query::default() };
        prop_assert_eq!(list(&batched, &all), list(&single, &all));
        let kept = changes.iter().filter(|change| matches!(change, roundsman_registry::Change::Asked { .. })).count();
        prop_assert_eq!(kept, batched.len(), "what is committed is what is visible");
    }
}

#[test]
fn ids_are_unique_in_a_namespace_and_limits_hold() {
    let registry = Registry::new(1);
    let mut draft = registry.draft(Limits { max_instances: 2, max_namespaces: 1, ..Limits::default() });
    let mut register = |number, service, port| {
        draft.register(&namespace(), Arc::new(registration(number, service, port, false)), Timestamp::default())
    };
    register(1, 0, 1).unwrap();
    assert!(register(1, 1, 1).unwrap_err().to_string().contains("belongs to an instance of service `s0`"));
    register(2, 0, 2).unwrap();
    assert!(register(3, 0, 3).unwrap_err().to_string().contains("--max-instances (2)"));
    let (edits, _) = draft.finish(Timestamp::default());
    registry.apply(&edits);
    let other = Registration::new(service(0), "10.0.0.1:1".parse().unwrap());
    let mut draft = registry.draft(Limits { max_instances: 9, max_namespaces: 1, ..Limits::default() });
    let refused = draft.register(&"other".parse().unwrap(), Arc::new(other), Timestamp::default());
    assert!(refused.unwrap_err().to_string().contains("--max-namespaces (1)"));
}

#[test]
fn the_watchers_of_an_emptied_namespace_are_told_and_their_cursors_never_mistaken() {
    let registry = Registry::new(1);
    let query = Query { scope: Scope::All, ..Query::default() };
    let mut watcher = Watcher { query, cursor: None, copy: BTreeMap::new() };
    for round in 0..40_u8 {
        let step = Step::Register {
            id: Some(round % 3),
            service: 0,
            port: 1 + u16::from(round % 2),
            tagged: false,
            again: false,
        };
        step_registry(&registry, &step, Timestamp::default());
        if round % 4 != 0 {
            watcher.look(&registry);
        }
        step_registry(&registry, &Step::Deregister { id: round % 3 }, Timestamp::default());
        if round % 5 == 1 && round % 4 != 0 {
            let update = registry.look(&namespace(), &watcher.query, watcher.cursor).update(&watcher.query);
            assert_eq!(&*update.removed[0].reason, "deregistered");
        }
        if round % 3 == 0 {
            // Another namespace is added, and the empty one dropped.
            let other = Registration::new(service(0), "10.0.0.9:1".parse().unwrap());
            let mut draft = registry.draft(Limits::default());
            let space = format!("n{round}").parse().unwrap();
            draft.register(&space, Arc::new(other), Timestamp::default()).unwrap();
            registry.apply(&draft.finish(Timestamp::default()).0);
        }
        if round % 3 != 1 {
            watcher.look(&registry);
            assert!(watcher.copy.is_empty());
        }
    }
}

/// What an owner asks of its instance, and what is observed of it while that is on its way to the store.
#[derive(Clone, Debug)]
enum Wish {
    Drain(bool),
    Tag(bool),
}

fn wishes() -> impl Strategy<Value = (Wish, Vec<Health>, Vec<Health>)> {
    let wish = prop_oneof![any::<bool>().prop_map(Wish::Drain), any::<bool>().prop_map(Wish::Tag)];
    let health = prop_oneof![Just(Health::Passing), Just(Health::Suspect), Just(Health::Evicted)];
    let seen = || proptest::collection::vec(health.clone(), 0..3);
    (wish, seen(), seen())
}

fn observe(registry: &Registry, seen: &[Health]) {
    for health in seen {
        step_registry(registry, &Step::Observe { id: 1, health: *health, stale: false }, Timestamp::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_the_owner_asked_for_survives_what_is_observed(
        wishes in proptest::collection::vec(wishes(), 1..12), last in proptest::bool::ANY,
    ) {
        let registry = Registry::new(1);
        step_registry(&registry, &Step::Register { id: Some(1), service: 0, port: 1, tagged: false, again: false }, Timestamp::default());
        let (mut draining, mut tagged) = (false, false);
        for (wish, before, meanwhile) in &wishes {
            observe(&registry, before);
            let mut draft = registry.draft(Limits::default());
            match wish {
                Wish::Drain(on) => {
                    draining = *on;
                    draft.drain(key(1), *on, Timestamp::default()).unwrap();
                }
                Wish::Tag(on) => {
                    tagged = *on;
                    draft.register(&namespace(), Arc::new(registration(1, 0, 1, *on)), Timestamp::default()).unwrap();
                }
            }
            let (edits, _) = draft.finish(Timestamp::default());
            // The batch is on its way to the store; the rounds do not wait for it.
            observe(&registry, meanwhile);
            registry.apply(&edits);
            let record = registry.find(&key(1)).unwrap();
            prop_assert_eq!((record.asked.draining, !record.instance.tags.is_empty()), (draining, tagged));
            prop_assert_eq!(record.status() == InstanceStatus::Evicted, record.observed.health == Health::Evicted);
        }
        observe(&registry, &[Health::Evicted]);
        if last {
            // What a client does by itself after an eviction.
            let step = Step::Register { id: Some(1), service: 0, port: 1, tagged, again: false };
            step_registry(&registry, &step, Timestamp::default());
        }
        observe(&registry, &[Health::Passing]);
        let record = registry.find(&key(1)).unwrap();
        let expected = if draining { InstanceStatus::Draining } else { InstanceStatus::Passing };
        prop_assert_eq!((record.status(), !record.instance.tags.is_empty()), (expected, tagged));
        prop_assert_eq!(registry.get(&namespace(), &service(0)).is_err(), draining);
    }
}

#[test]
fn a_drain_asked_for_while_an_eviction_is_on_its_way_holds_after_the_reinstatement() {
    let registry = Registry::new(1);
    let step = |step| step_registry(&registry, &step, Timestamp::default());
    step(Step::Register { id: Some(1), service: 0, port: 1, tagged: false, again: false });
    observe(&registry, &[Health::Passing]);
    let mut draft = registry.draft(Limits::default());
    draft.drain(key(1), true, Timestamp::default()).unwrap();
    let (edits, _) = draft.finish(Timestamp::default());
    observe(&registry, &[Health::Evicted]);
    registry.apply(&edits);
    let evicted = registry.find(&key(1)).unwrap();
    assert_eq!((evicted.status(), &*evicted.instance.reason), (InstanceStatus::Evicted, "Evicted"));
    observe(&registry, &[Health::Passing]);
    assert_eq!(registry.find(&key(1)).unwrap().status(), InstanceStatus::Draining);
    // And the other way round: undone while it is evicted.
    observe(&registry, &[Health::Evicted]);
    step(Step::Drain { id: 1, on: false, operator: false });
    observe(&registry, &[Health::Passing]);
    assert_eq!(registry.find(&key(1)).unwrap().status(), InstanceStatus::Passing);
}
