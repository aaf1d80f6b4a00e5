//! What the writer makes of answers that come late, conflicts, and what it hears of other servers meanwhile.

use roundsman_health::{Class, Settings};
use roundsman_protocol::{Check, DiscoveryError, Namespace, Registered, Registration, Timestamp, instance::Outcome};
use roundsman_registry::{Change, Key, Record, Tombstone};
use roundsman_store::{Standing, Store};
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::{
    memory::Budget,
    metrics::Metrics,
    principal::{Door, Principal},
    visits::Visits,
};

fn memory() -> Arc<dyn Store> {
    let url: roundsman_store::StoreUrl = "memory:".parse().unwrap();
    url.open(Duration::from_secs(60), "store")
}

fn task(store: &Arc<dyn Durable>, server: &str) -> Task {
    let mut metrics = Metrics::new();
    let (registry, clock) = (Arc::new(Registry::new(1)), Clock::system());
    let groups = Groups::new(Arc::clone(&registry), Budget::new(1 << 30), &mut metrics);
    let (observe, _) = mpsc::channel(1_024);
    let rounds = Rounds::start(Settings::default(), clock.clone(), observe, Visits::new(&mut metrics));
    let state = StoreState::new(store.describe(), clock.clone(), &mut metrics);
    Task {
        registry,
        groups,
        store: Arc::clone(store),
        rounds,
        server: server.into(),
        clock,
        meters: Meters::new(&mut metrics),
        state,
        limits: Limits::default(),
        unwritten: Unwritten::default(),
        writing: HashSet::new(),
        conflicts: 0,
        refuse_until: None,
        full: false,
        tombstones: Tombstones::default(),
        audit: Audit::default(),
        journal: Journal::new(server),
        troubled: Troubled::default(),
        gap: None,
    }
}

fn key(id: &str) -> Key {
    Key { namespace: Namespace::default(), id: id.parse().unwrap() }
}

fn registration(id: &str, port: u16) -> Registration {
    let mut registration = Registration::new("db".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
    registration.id = Some(key(id).id);
    registration.check = Check::none();
    registration
}

fn by() -> Arc<Principal> {
    Arc::new(Principal::new(Door::Rpc, None, None))
}

fn register(registration: Registration) -> (Request, Receiver<Result<Registered, DiscoveryError>>) {
    let (reply, answer) = oneshot::channel();
    let registration = Arc::new(registration);
    (Request::Register { namespace: Namespace::default(), registration, twins: Vec::new(), by: by(), reply }, answer)
}

fn deregister(id: &str) -> (Request, Receiver<Result<(), DiscoveryError>>) {
    let (reply, answer) = oneshot::channel();
    (Request::Deregister { key: key(id), by: by(), reply }, answer)
}

fn drain(id: &str) -> (Request, Receiver<Result<(), DiscoveryError>>) {
    let (reply, answer) = oneshot::channel();
    (Request::Drain { key: key(id), on: true, operator: false, by: by(), reply }, answer)
}

fn saw(record: &Record, health: Health) -> Observation {
    let (key, incarnation, at) = (record.key(), record.asked.incarnation, Clock::system().now());
    Observation::Health { key, incarnation, health, class: Class::Refused, reason: format!("{health:?}").into(), at }
}

fn forget(record: &Record) -> Observation {
    let reason = "probation is over".into();
    Observation::Forget { key: record.key(), incarnation: record.asked.incarnation, reason }
}

/// Writes what was observed.
async fn write(task: &mut Task) {
    let writing = task.begin(&mut Vec::new());
    settle(task, writing).await;
}

/// Reads the store again, as after a gap in what is heard of others.
async fn reload(task: &mut Task) {
    let snapshot = task.store.load().await.unwrap();
    task.take_over(snapshot, &roundsman_store::Aside::default(), oneshot::channel().0);
    write(task).await;
}

/// One that was evicted at one server, as both know.
async fn with_one_evicted(one: &mut Task, other: &mut Task) -> Arc<Record> {
    let live = with_one(one).await;
    one.observe([saw(&live, Health::Evicted)].into_iter());
    write(one).await;
    let evicted = one.registry.find(&key("db-1")).unwrap();
    other.adopt(Standing::There(Arc::clone(&evicted)), false);
    evicted
}

/// Carries out operations until there is none left.
async fn settle(task: &mut Task, mut operation: Option<Operation>) {
    while let Some(running) = operation.take() {
        let (what, result, began) = running.ended().await;
        operation = task.finished(what, result, began);
    }
}

async fn ask(task: &mut Task, request: Request) {
    let operation = task.begin(&mut vec![request]);
    settle(task, operation).await;
}

/// One that is registered here and in the store.
async fn with_one(task: &mut Task) -> Arc<Record> {
    ask(task, register(registration("db-1", 1)).0).await;
    task.registry.find(&key("db-1")).unwrap()
}

#[tokio::test]
async fn what_is_being_written_is_later_than_what_another_server_saw_before() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    task.observe([saw(&live, Health::Evicted)].into_iter());
    let writing = task.begin(&mut Vec::new());
    // Written by another server before ours: a drain, on top of what the store had then.
    let drained = live.drained(true, live.asked.version + 1, Timestamp::default());
    let drained = Arc::new(drained.drained(false, live.asked.version + 2, Timestamp::default()));
    task.adopt(Standing::There(drained), false);
    settle(&mut task, writing).await;
    let here = task.registry.find(&key("db-1")).unwrap();
    let there = store.load().await.unwrap().records.remove(0);
    assert_eq!((here.observed.health, there.observed.health), (Health::Evicted, Health::Evicted), "here, in the store");
}

#[tokio::test]
async fn a_removal_that_is_heard_of_before_our_own_answer_holds() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    let (request, answer) = register(Registration { weight: 7, ..registration("db-1", 1) });
    let writing = task.begin(&mut vec![request]);
    // Our update is written; then another server is asked to deregister, and that is heard of first.
    task.adopt(Standing::Gone(Tombstone { key: key("db-1"), version: live.asked.version + 1_000_000 }), false);
    settle(&mut task, writing).await;
    drop(answer);
    assert_eq!(task.registry.find(&key("db-1")), None, "it was removed later, and nobody tells this server again");
}

#[tokio::test]
async fn one_that_the_store_lost_can_be_deregistered_with_the_batch_that_writes_it_again() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    task.store = memory() as Arc<dyn Durable>;
    task.write_back(vec![live]);
    let (request, answer) = deregister("db-1");
    ask(&mut task, request).await;
    assert_eq!((answer.await.unwrap(), task.meters.conflicts.get()), (Ok(()), 0));
}

#[tokio::test]
async fn one_that_the_store_lost_can_be_drained_with_the_batch_that_writes_it_again() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    task.store = memory() as Arc<dyn Durable>;
    task.write_back(vec![live]);
    let (request, answer) = drain("db-1");
    ask(&mut task, request).await;
    assert_eq!((answer.await.unwrap(), task.meters.conflicts.get()), (Ok(()), 0));
}

#[tokio::test]
async fn one_that_came_back_into_the_store_can_register_with_the_batch_that_removes_it() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    ask(&mut task, deregister("db-1").0).await;
    // A store that has it again, such as one that another server filled.
    let back = memory() as Arc<dyn Durable>;
    back.commit(&[Change::Asked { record: Arc::clone(&live), expected: 0 }], &[]).await.unwrap();
    task.store = back;
    let snapshot = task.store.load().await.unwrap();
    task.take_over(snapshot, &roundsman_store::Aside::default(), oneshot::channel().0);
    let (request, answer) = register(registration("db-1", 1));
    ask(&mut task, request).await;
    let answer = answer.await.unwrap().map(|registered| registered.outcome);
    assert_eq!((answer, task.meters.conflicts.get() <= 1), (Ok(Outcome::Created), true));
}

#[tokio::test]
async fn two_servers_that_register_others_at_one_address_keep_one_of_them() {
    let store = memory() as Arc<dyn Durable>;
    let (mut one, mut other) = (task(&store, "one"), task(&store, "other"));
    let checked = |id| Registration { check: Check::http("/health"), ..registration(id, 1) };
    let (first, first_answer) = register(checked("db-1"));
    let (second, second_answer) = register(checked("db-2"));
    ask(&mut one, first).await;
    ask(&mut other, second).await;
    assert!(first_answer.await.unwrap().is_ok() && second_answer.await.unwrap().is_ok());
    let (x, y) = (one.registry.find(&key("db-1")).unwrap(), other.registry.find(&key("db-2")).unwrap());
    // Both servers visit theirs, and hear of each other's.
    one.observe([saw(&x, Health::Passing)].into_iter());
    other.observe([saw(&y, Health::Passing)].into_iter());
    one.adopt(Standing::There(y), false);
    other.adopt(Standing::There(x), false);
    for task in [&mut one, &mut other] {
        let writing = task.begin(&mut Vec::new());
        settle(task, writing).await;
    }
    assert!(!store.load().await.unwrap().records.is_empty(), "both were acknowledged, both are gone");
}

/// It registered at another server just before its probation ended here.
#[tokio::test]
async fn whoever_registered_elsewhere_in_time_is_not_taken_for_removed() {
    let store = memory() as Arc<dyn Durable>;
    let (mut one, mut other) = (task(&store, "one"), task(&store, "other"));
    let evicted = with_one_evicted(&mut one, &mut other).await;
    ask(&mut one, register(registration("db-1", 1)).0).await;
    let again = one.registry.find(&key("db-1")).unwrap();
    // Its clock is a little ahead, or it could not reach the store for a while.
    other.registry.saw_version(again.asked.version + 10);
    other.observe([forget(&evicted)].into_iter());
    write(&mut other).await;
    assert_eq!(store.load().await.unwrap().records.len(), 1, "the store leaves it alone");
    other.adopt(Standing::There(again), false);
    assert!(other.registry.find(&key("db-1")).is_some(), "it is heard of, and there");
    reload(&mut other).await;
    assert_eq!(store.load().await.unwrap().records.len(), 1, "nobody removed it");
}

/// The same where it is heard of before the store has answered.
#[tokio::test]
async fn whoever_was_seen_well_elsewhere_in_time_is_not_taken_for_removed() {
    let store = memory() as Arc<dyn Durable>;
    let (mut one, mut other) = (task(&store, "one"), task(&store, "other"));
    let evicted = with_one_evicted(&mut one, &mut other).await;
    one.observe([saw(&evicted, Health::Passing)].into_iter());
    write(&mut one).await;
    other.observe([forget(&evicted)].into_iter());
    let writing = other.begin(&mut Vec::new());
    other.adopt(Standing::There(one.registry.find(&key("db-1")).unwrap()), false);
    settle(&mut other, writing).await;
    // The next that is heard of it is the same life with the same version.
    one.observe([saw(&evicted, Health::Suspect)].into_iter());
    let suspect = one.registry.find(&key("db-1")).unwrap();
    other.adopt(Standing::There(suspect), false);
    let here = other.registry.find(&key("db-1")).map(|record| record.observed.health);
    assert_eq!(here, Some(Health::Suspect), "what another server sees is taken in");
    reload(&mut other).await;
    assert_eq!(store.load().await.unwrap().records.len(), 1, "nobody removed it");
}

/// The store dropped it at the end of its probation, as Redis does by itself.
#[tokio::test]
async fn one_that_registers_with_the_batch_that_forgets_it_is_there() {
    let store = memory() as Arc<dyn Durable>;
    let mut task = task(&store, "a");
    let live = with_one(&mut task).await;
    task.observe([saw(&live, Health::Evicted)].into_iter());
    write(&mut task).await;
    task.store = memory() as Arc<dyn Durable>;
    task.observe([forget(&live)].into_iter());
    let (request, answer) = register(registration("db-1", 1));
    ask(&mut task, request).await;
    assert!(answer.await.unwrap().is_ok());
    assert!(task.registry.find(&key("db-1")).is_some(), "it was acknowledged");
    reload(&mut task).await;
    assert_eq!(task.store.load().await.unwrap().records.len(), 1);
}

/// Instances that register with both servers: the other one is always faster.
#[tokio::test]
async fn one_conflict_each_is_not_many_in_a_row() {
    let store = memory() as Arc<dyn Durable>;
    let (mut task, mut faster) = (task(&store, "a"), task(&store, "b"));
    // Or else both take the same version, which is another matter.
    task.registry.saw_version(Clock::system().now().as_millis() + 1_000_000);
    for n in 1..=20 {
        ask(&mut faster, register(registration(&format!("db-{n}"), n)).0).await;
        let (request, answer) = register(registration(&format!("db-{n}"), n));
        ask(&mut task, request).await;
        let answer = answer.await.unwrap();
        assert!(answer.is_ok(), "number {n}, after its first conflict: {answer:?}");
    }
}
