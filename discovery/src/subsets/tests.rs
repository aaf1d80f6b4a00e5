//! Groups without a server: who is told what, and what is kept.

mod interleaving;

use std::collections::BTreeSet;

use roundsman_protocol::{Check, Registration, Subset, Timestamp};
use roundsman_registry::{Edit, Key as RecordKey};
use tokio::{task::JoinSet, time::advance};

use super::*;

/// A registry, its groups, and whoever writes.
struct World {
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    groups: Arc<Groups>,
}

impl World {
    fn new(limits: Limits, memory: usize) -> Self {
        let (registry, budget) = (Arc::new(Registry::new(1)), Budget::new(memory));
        let groups = Groups::with_limits(Arc::clone(&registry), Arc::clone(&budget), limits, &mut Metrics::new());
        Self { registry, budget, groups }
    }

    /// One with so many instances, without any limit.
    fn with(instances: u16) -> Self {
        let world = Self::new(Limits::default(), 1 << 30);
        (0..instances).for_each(|n| world.write(&register(n, "a")));
        world
    }

    /// What the writer does.
    fn write(&self, edit: &Edit) {
        let effects = self.registry.apply(std::slice::from_ref(edit));
        self.groups.changed(&effects);
    }

    fn join(&self, client: &str) -> Result<Membership, DiscoveryError> {
        self.groups.join(&key("db", 5), &client.into(), &[])
    }

    fn joined(&self, clients: usize) -> Vec<Membership> {
        (0..clients).map(|n| self.join(&format!("c-{n}")).unwrap()).collect()
    }

    fn tend(&self) {
        let groups = self.groups.table().all();
        groups.iter().for_each(|group| group.tend(&self.groups, Instant::now()));
    }

    fn used(&self) -> u64 {
        self.budget.status(0, 0).used
    }

    fn is_given_up(&self) -> bool {
        self.groups.table().is_empty()
    }
}

fn key(service: &str, size: u32) -> Key {
    let subset = Some(Subset { client: "x".into(), size });
    let query = Query { subset, tags: vec!["a".into()], ..Query::service(service.parse().unwrap()) };
    Key::of(&Namespace::default(), &query).unwrap().unwrap().0
}

fn record_key(n: u16) -> RecordKey {
    RecordKey { namespace: Namespace::default(), id: format!("db-{n}").parse().unwrap() }
}

fn register(n: u16, tag: &str) -> Edit {
    let address = format!("10.0.0.7:{}", n + 1).parse().unwrap();
    let (check, tags) = (Check::none(), tag.split(' ').map(Into::into).collect());
    let registration = Registration { check, tags, ..Registration::new("db".parse().unwrap(), address) };
    Edit::Register {
        key: record_key(n),
        registration: Arc::new(registration),
        version: 1,
        at: Timestamp::from_millis(1),
    }
}

fn remove(n: u16) -> Edit {
    Edit::Remove { key: record_key(n), reason: "deregistered".into(), version: 1 }
}

fn shares(members: &mut [Membership]) -> Vec<BTreeSet<InstanceId>> {
    members.iter_mut().map(|member| member.share().into_iter().collect()).collect()
}

fn refused(joined: Result<Membership, DiscoveryError>) -> String {
    joined.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_in_time_has_what_it_had_and_nobody_else_notices() {
    let world = World::with(20);
    let mut members = world.joined(8);
    let before = shares(&mut members);
    drop(members.remove(0));
    advance(GRACE - Duration::from_secs(1)).await;
    world.tend();
    members.insert(0, world.join("c-0").unwrap());
    assert!(members[1..].iter().all(|member| !member.bell.has_changed().unwrap()));
    assert_eq!(shares(&mut members), before);
    assert_eq!(world.groups.meters.moves(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_is_forgotten_and_the_others_share_evenly() {
    let world = World::with(20);
    let mut members = world.joined(12);
    members.truncate(8);
    let mut tasks = JoinSet::new();
    let groups = Arc::clone(&world.groups);
    let offload = Offload::start().unwrap();
    tasks.spawn(async move { groups.keep_up(&offload).await });
    tokio::time::sleep(GRACE + 2 * EVERY).await;
    let standing = world.groups.table().all()[0].standing();
    assert_eq!((standing.clients, standing.least, standing.most), (8, 2, 2));
    drop(members);
    tokio::time::sleep(GRACE + 2 * EVERY).await;
    assert!(world.is_given_up() && world.used() == 0, "nothing is kept for nobody");
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_those_whom_it_concerns_and_nobody_else() {
    let world = World::with(50);
    let mut tasks = JoinSet::new();
    let groups = Arc::clone(&world.groups);
    let offload = Offload::start().unwrap();
    tasks.spawn(async move { groups.keep_up(&offload).await });
    let mut members = world.joined(40);
    for change in [remove(7), register(8, "b"), register(9, "a b")] {
        let before = shares(&mut members);
        let id = change.key().id;
        world.write(&change);
        for (member, share) in members.iter_mut().zip(&before) {
            if share.contains(&id) {
                member.changed().await;
            }
        }
        tokio::time::sleep(EVERY).await;
        for (member, share) in members.iter().zip(&before) {
            let woken = member.bell.has_changed().unwrap();
            assert!(!woken || share.contains(&id), "{id}: {} is woken for nothing", member.client);
        }
        let concerned = before.iter().filter(|share| share.contains(&id)).count();
        let after = shares(&mut members);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!(moved, if id.as_str() == "db-9" { 0 } else { concerned }, "{id}");
    }
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_watches_of_one_name_are_one_client() {
    let world = World::with(20);
    let mut members = vec![world.join("a").unwrap(), world.join("a").unwrap()];
    let before = shares(&mut members);
    assert_eq!(before[0], before[1]);
    drop(members.remove(0));
    advance(2 * GRACE).await;
    assert_eq!(shares(&mut members), before[1..], "the other one is still there");
    world.write(&remove(before[0].first().unwrap().as_str()[3..].parse().unwrap()));
    world.tend();
    assert!(members[0].bell.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn groups_and_clients_have_limits() {
    let limits = Limits { groups: 2, clients: 3, clients_of_a_namespace: 4 };
    let world = World::new(limits, 1 << 30);
    let mut members = world.joined(3);
    assert!(refused(world.join("c-3")).contains("clients that share a subset query (3)"));
    assert_eq!(world.join("c-2").unwrap().share(), members[2].share(), "who is in already may come in again");
    drop(members.pop());
    let late = world.join("c-3").unwrap();
    assert_eq!(world.groups.table().all()[0].standing().clients, 3, "who is gone makes room");
    let join = |service, client: &str| world.groups.join(&key(service, 5), &client.into(), &[]);
    let other = join("other", "c-0").unwrap();
    assert!(refused(join("other", "c-1")).contains("clients that have a subset in a namespace (4)"));
    assert!(refused(join("third", "c-0")).contains("different subset queries of a namespace (2)"));
    drop((late, other, members));
    advance(2 * GRACE).await;
    world.tend();
    assert!(join("third", "c-0").is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_clients_is_part_of_the_memory_that_they_may_take() {
    let world = World::new(Limits::default(), 40_000);
    (0..20).for_each(|n| world.write(&register(n, "a")));
    let mut members = Vec::new();
    let refusal = loop {
        match world.join(&format!("c-{}", members.len())) {
            Ok(member) => members.push(member),
            Err(error) => break error,
        }
    };
    assert!(refusal.to_string().contains("--max-memory"), "{refusal}");
    assert!(members.len() > 5 && world.used() <= 40_000, "{} clients take {}", members.len(), world.used());
    let before = shares(&mut members);
    assert!(world.join("late").is_err() && shares(&mut members) == before, "who is refused moves nothing");
    drop(members);
    advance(2 * GRACE).await;
    world.tend();
    assert_eq!(world.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_client_that_is_refused_leaves_nothing() {
    let world = World::new(Limits::default(), 100);
    (0..20).for_each(|n| world.write(&register(n, "a")));
    assert!(refused(world.join("a")).contains("--max-memory"));
    assert!(world.is_given_up() && world.used() == 0);
}
