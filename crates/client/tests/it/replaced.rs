//! Two processes at one address, and ids that an operator keeps out.

use std::time::Duration;

use roundsman::{Discovery, DiscoveryError, Error, Query, Registration, RegistrationState, Scope};
use tokio::time::advance;

use crate::support::{HANG, StoppedClock, client, eventually, instance, server, server_on, soon};

/// In steps of this, time passes.
const STEP: Duration = Duration::from_secs(1);

async fn register(discovery: &Discovery, id: &str) -> Registration {
    let new = instance("product", 7070).id(id).unwrap();
    discovery.register(new).await.unwrap()
}

async fn ids(discovery: &Discovery) -> Vec<String> {
    let all = discovery.list(Query::default().scope(Scope::Registered)).await.unwrap();
    all.iter().map(|instance| instance.id.to_string()).collect()
}

async fn replaced_by(registration: &Registration) -> String {
    let mut state = registration.state();
    let replaced = soon(state.wait_for(|state| matches!(state, RegistrationState::Replaced { .. }))).await;
    match &*replaced.unwrap() {
        RegistrationState::Replaced { by, .. } => by.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn of_two_processes_at_one_address_the_later_one_wins_once() {
    let server = server().await;
    let (first, second) = (client(&server).await, client(&server).await);
    let a = register(&first, "a").await;
    let b = register(&second, "b").await;
    let clock = StoppedClock::new();
    assert_eq!(clock.passing(STEP, replaced_by(&a)).await, "b");
    assert_eq!(a.state().borrow().to_string(), "replaced by b at the same address");
    // It leaves the other alone, for as long as that one is there.
    for _ in 0..120 {
        advance(STEP).await;
        assert_eq!(clock.still(Box::pin(ids(&first))).await, ["b"]);
    }
    assert!(matches!(*b.state().borrow(), RegistrationState::Registered));
    // What its owner wishes is answered, and not kept waiting.
    let refused = clock.still(a.draining()).await.unwrap_err();
    assert!(
        matches!(refused, Error::Discovery(DiscoveryError::Replaced { ref by, .. }) if by.as_str() == "b"),
        "{refused}"
    );
    clock.still(a.passing()).await.unwrap_err();
    // Then it comes back by itself.
    clock.still(b.close()).await.unwrap();
    clock.passing(STEP, a.registered()).await;
    drop(clock);
    assert_eq!(ids(&first).await, ["a"]);
    a.close().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_restarts_without_memory_does_not_begin_the_fight_anew() {
    let first = server().await;
    let addr = first.rpc_addr();
    let (one, other) = (client(&first).await, client(&first).await);
    let a = register(&one, "a").await;
    let b = register(&other, "b").await;
    let clock = StoppedClock::new();
    assert_eq!(clock.passing(STEP, replaced_by(&a)).await, "b");
    drop(clock);
    first.stop().await;
    let second = server_on(addr).await;
    let mut state = b.state();
    eventually("the later one is registered again", async || ids(&other).await == ["b"]).await;
    soon(state.wait_for(|state| matches!(state, RegistrationState::Registered))).await.unwrap();
    assert!(matches!(*a.state().borrow(), RegistrationState::Replaced { .. }));
    second.stop().await;
}

#[tokio::test]
async fn a_process_that_is_started_anew_takes_its_address_at_once() {
    let server = server().await;
    let (first, second) = (client(&server).await, client(&server).await);
    drop(register(&first, "a").await);
    let b = register(&second, "b").await;
    assert_eq!(ids(&first).await, ["b"]);
    let c = register(&first, "c").await;
    assert_eq!(ids(&first).await, ["c"], "whoever starts is there now, whatever was there before");
    let clock = StoppedClock::new();
    assert_eq!(clock.passing(STEP, replaced_by(&b)).await, "c");
    drop(clock);
    drop(c);
    server.stop().await;
}

#[tokio::test]
async fn an_id_that_an_operator_keeps_out_stays_out_until_that_is_lifted() {
    let server = server().await;
    let (discovery, operator) = (client(&server).await, client(&server).await);
    let registration = register(&discovery, "a").await;
    let dismissed = operator.dismiss(registration.id(), Some(Duration::from_secs(3_600))).await.unwrap();
    let keeper = dismissed.kept_by.expect("its own client is connected");
    assert!(keeper.address.is_some() && dismissed.blocked_until.is_some(), "{keeper:?}");
    let mut state = registration.state();
    let blocked = |state: &RegistrationState| {
        matches!(state, RegistrationState::Lost { error: Error::Discovery(DiscoveryError::Blocked { .. }), .. })
    };
    let clock = StoppedClock::new();
    let why = clock.passing(STEP, state.wait_for(blocked)).await.unwrap().to_string();
    assert!(why.contains("is blocked until "), "{why}");
    drop(clock);
    let refused = operator.register(instance("product", 7071).id("a").unwrap()).await.unwrap_err();
    assert!(refused.to_string().starts_with("instance `a` is blocked until ") && !refused.is_retryable(), "{refused}");
    let refused = operator.dismiss(registration.id(), None).await.unwrap_err();
    assert!(matches!(refused, Error::Discovery(DiscoveryError::Blocked { .. })), "{refused}");
    let clock = StoppedClock::new();
    for _ in 0..120 {
        advance(STEP).await;
        assert!(clock.still(Box::pin(ids(&discovery))).await.is_empty());
    }
    let lifted = clock.still(operator.dismiss(registration.id(), Some(Duration::ZERO))).await.unwrap();
    assert_eq!(lifted.blocked_until, None);
    clock.passing(STEP, registration.registered()).await;
    drop(clock);
    assert_eq!(ids(&discovery).await, ["a"]);
    // Its own client keeps nothing that is closed.
    let id = registration.id().clone();
    registration.close().await.unwrap();
    assert!(operator.dismiss(&id, None).await.unwrap_err().is_not_found());
    let absurd = operator.dismiss(&id, Some(HANG * 10_000_000)).await.unwrap_err();
    assert!(matches!(&absurd, Error::Invalid(invalid) if invalid.field == "block"), "{absurd}");
    server.stop().await;
}

#[tokio::test]
async fn many_changes_in_part_at_once_all_hold() {
    let server = server().await;
    let discovery = client(&server).await;
    let registration = register(&discovery, "a").await;
    let changes = (0..50).map(|n: u32| {
        let (discovery, id) = (discovery.clone(), registration.id().clone());
        let meta = [(format!("k{n}"), n.to_string())].into_iter().collect();
        let patch = roundsman::protocol::Patch { meta, ..Default::default() };
        async move { discovery.patch(&id, &patch).await.unwrap() }
    });
    futures::future::join_all(changes).await;
    let all = discovery.list(Query::default().scope(Scope::Registered)).await.unwrap();
    assert_eq!(all[0].meta.len(), 50);
    server.stop().await;
}
