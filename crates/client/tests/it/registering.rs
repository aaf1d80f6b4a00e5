//! Registrations that keep themselves alive.

use std::time::Duration;

use roundsman::{
    Check, Discovery, Error, Event, Instance, InstanceStatus, NewInstance, Query, RegistrationState, Scope,
};
use tokio::{task::JoinSet, time::advance};

use crate::support::{
    HANG, Network, State, StoppedClock, client, connect, eventually, instance, nowhere, server, server_on, soon,
};

#[tokio::test]
async fn registers_again_after_the_server_restarted_without_memory() {
    let first = server().await;
    let addr = first.rpc_addr();
    let discovery = client(&first).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    first.stop().await;
    let mut state = registration.state();
    let lost = soon(state.wait_for(|state| matches!(state, RegistrationState::Lost { .. }))).await;
    assert!(lost.unwrap().to_string().contains("connection refused"), "the state says why");

    let second = server_on(addr).await;
    soon(registration.registered()).await;
    assert_eq!(soon(discovery.get("product")).await.unwrap().id, *registration.id(), "under the same id");
    assert_eq!(discovery.list(Query::default()).await.unwrap().len(), 1);
    registration.close().await.unwrap();
    assert!(discovery.get("product").await.is_err());
    second.stop().await;
}

#[tokio::test]
async fn draining_outlasts_a_restart() {
    let first = server().await;
    let addr = first.rpc_addr();
    let discovery = client(&first).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    registration.draining().await.unwrap();
    first.stop().await;
    let second = server_on(addr).await;
    let all = Query::default().scope(Scope::All);
    eventually("it is registered again, and drained", async || {
        let list = discovery.list(all.clone()).await.unwrap_or_default();
        list.first().is_some_and(|instance| instance.status == InstanceStatus::Draining)
    })
    .await;
    second.stop().await;
}

#[tokio::test]
async fn registers_again_when_the_server_forgot_it() {
    let server = server().await;
    let discovery = client(&server).await;
    // A short ttl makes for frequent questions.
    let new = instance("product", 7070).check(Check::ttl(Duration::from_secs(1)));
    let registration = discovery.register(new).await.unwrap();
    client(&server).await.deregister(registration.id()).await.unwrap();
    eventually("it is back", async || discovery.get("product").await.is_ok()).await;
    assert_eq!(discovery.get("product").await.unwrap().id, *registration.id());
    server.stop().await;
}

#[tokio::test]
async fn a_ttl_is_renewed_in_time() {
    let server = server().await;
    let discovery = client(&server).await;
    let new = instance("product", 7070).check(Check::ttl(Duration::from_secs(1)));
    let registration = discovery.register(new).await.unwrap();
    eventually("it passes", async || discovery.get("product").await.is_ok()).await;
    // It must be there at every look for three ttls. Time passes by steps, each of which ends with an answer of the server,
    // so that nothing but a renewal that is not sent can be late.
    let clock = StoppedClock::new();
    for _ in 0..60 {
        advance(Duration::from_millis(50)).await;
        clock.still(discovery.services()).await.unwrap();
        clock.still(discovery.get("product")).await.expect("never away");
    }
    drop(clock);
    // Without renewals it goes.
    drop(registration);
    eventually("it is evicted", async || discovery.get("product").await.is_err()).await;
    server.stop().await;
}

#[tokio::test]
async fn moves_to_the_second_server() {
    let (first, second) = (server().await, server().await);
    let servers = [first.rpc_addr(), second.rpc_addr()];
    let discovery = connect(servers).await.unwrap();
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let at_second = client(&second).await;
    assert!(at_second.get("product").await.is_err());
    first.stop().await;
    eventually("it registered at the second", async || at_second.get("product").await.is_ok()).await;
    assert_eq!(discovery.get("product").await.unwrap().id, *registration.id());
    second.stop().await;
}

#[tokio::test]
async fn a_program_may_start_before_its_server() {
    let addr = nowhere().await;
    let discovery = Discovery::builder().servers(addr).connect_lazy().unwrap();
    let registration = discovery.register_in_background(instance("product", 7070)).unwrap();
    assert!(matches!(*registration.state().borrow(), RegistrationState::Pending));
    assert!(matches!(soon(discovery.disconnected()).await, Error::Unreachable { .. }));
    let server = server_on(addr).await;
    soon(registration.registered()).await;
    soon(discovery.connected()).await.unwrap();
    assert_eq!(discovery.get("product").await.unwrap().id, *registration.id());
    server.stop().await;
}

#[tokio::test]
async fn a_registration_cut_in_flight_makes_one_instance() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let discovery = connect(network.addr).await.unwrap();
    network.become_(State::Frozen);
    let new = NewInstance::new("product", "127.0.0.1:7070").unwrap().check(Check::none());
    let (registered, ()) = tokio::join!(soon(discovery.register(new)), async {
        // The registration is sent and gets nowhere; then the connection breaks under it.
        network.become_(State::Cut);
        soon(discovery.disconnected()).await;
        network.become_(State::Whole);
    });
    let registration = registered.unwrap();
    let all = discovery.list(Query::default().scope(Scope::All)).await.unwrap();
    assert_eq!(all.iter().map(|instance| &instance.id).collect::<Vec<_>>(), [registration.id()]);
    server.stop().await;
}

#[tokio::test]
async fn the_first_registration_fails_fast() {
    let addr = nowhere().await;
    let lazy = Discovery::builder().servers(addr).timeout(Duration::from_millis(100)).connect_lazy().unwrap();
    let error = soon(lazy.register(instance("product", 7070))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable());
    let broken = NewInstance::new("product", "127.0.0.1:7070").unwrap().health_path("health");
    assert!(matches!(lazy.register(broken).await, Err(Error::Invalid(invalid)) if invalid.field == "check.path"));
}

/// What the server knows of the one instance that is registered.
async fn known(discovery: &Discovery) -> Instance {
    let all = discovery.list(Query::default().scope(Scope::All)).await.unwrap();
    let [one] = all.as_slice() else { panic!("not one: {all:?}") };
    Instance::clone(one)
}

#[tokio::test]
async fn an_update_changes_the_data_and_nothing_else() {
    let server = server().await;
    let discovery = client(&server).await;
    let new = instance("product", 7070).tag("fruit").meta("load", "1").zone("a");
    let registration = discovery.register(new).await.unwrap();
    let before = known(&discovery).await;
    let mut changes = discovery.watch(Query::default()).unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(_))));

    let update = registration.update(|instance| {
        instance.meta("load", "3").meta("shelf", "2").without_tag("fruit").tag("fresh").zone("b").version("2").weight(5)
    });
    update.await.unwrap();
    let after = known(&discovery).await;
    let expected = Instance {
        meta: [("load", "3"), ("shelf", "2")].into_iter().collect(),
        tags: ["fresh".into()].into(),
        zone: Some("b".into()),
        version: Some("2".into()),
        weight: 5,
        ..before
    };
    assert_eq!(after, expected, "the same id, address, status, and both times");
    let Some(Event::Changed(seen)) = soon(changes.next()).await else { panic!("a change, and no flap") };
    assert_eq!(*seen, expected);
    // The next event is about somebody else: there was no second one.
    let other = discovery.register(instance("order", 6060)).await.unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Changed(seen)) if seen.id == *other.id()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_from_many_tasks_are_all_kept() {
    let server = server().await;
    let discovery = client(&server).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let mut updates = JoinSet::new();
    for n in 0..40 {
        let registration = registration.clone();
        updates.spawn(async move { registration.update(|instance| instance.meta(format!("k{n}"), "v")).await });
    }
    assert!(updates.join_all().await.iter().all(Result::is_ok));
    assert_eq!(known(&discovery).await.meta.len(), 40);
    server.stop().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    let server = server().await;
    let discovery = client(&server).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let before = known(&discovery).await;
    let refused = registration.update(|instance| instance.meta("load", "3").weight(0)).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(invalid) if invalid.field == "weight"), "{refused}");
    let refused = registration.update(|instance| instance.check(Check::tcp())).await.unwrap_err();
    assert!(refused.to_string().contains("register anew"), "{refused}");
    assert_eq!(known(&discovery).await, before);
    // Nor does what was refused come along with what is not.
    registration.update(|instance| instance.zone("a")).await.unwrap();
    assert_eq!(known(&discovery).await, Instance { zone: Some("a".into()), ..before });
    server.stop().await;
}

#[tokio::test]
async fn an_update_while_the_server_is_away_fails_and_is_kept() {
    let first = server().await;
    let addr = first.rpc_addr();
    let discovery = client(&first).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    registration.update(|instance| instance.meta("told", "before")).await.unwrap();
    first.stop().await;
    eventually("a round has failed", async || discovery.disconnected().await.to_string().contains("refused")).await;
    let (clock, late) = (StoppedClock::new(), HANG + Duration::from_millis(1));
    let update = registration.update(|instance| instance.meta("told", "meanwhile"));
    let error = clock.passing(late, update).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error}");
    let error = clock.passing(late, registration.draining()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(clock);

    let second = server_on(addr).await;
    eventually("both have arrived", async || {
        let all = discovery.list(Query::default().scope(Scope::All)).await.unwrap_or_default();
        all.iter().any(|one| one.meta.get("told") == Some("meanwhile") && one.status == InstanceStatus::Draining)
    })
    .await;
    assert_eq!(known(&discovery).await.id, *registration.id());
    registration.passing().await.unwrap();
    assert_eq!(discovery.get("product").await.unwrap().id, *registration.id());
    second.stop().await;
}

#[tokio::test]
async fn an_update_that_meets_a_frozen_server_arrives_when_it_wakes() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let discovery = Discovery::builder().servers(network.addr).timeout(HANG).connect().await.unwrap();
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    network.become_(State::Frozen);
    let clock = StoppedClock::new();
    let update = registration.update(|instance| instance.weight(7));
    let error = clock.passing(HANG + Duration::from_millis(1), update).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(clock);
    network.become_(State::Cut);
    network.become_(State::Whole);
    let direct = client(&server).await;
    eventually("it has arrived", async || direct.get("product").await.is_ok_and(|one| one.weight == 7)).await;
    server.stop().await;
}

#[tokio::test]
async fn an_update_of_what_the_server_forgot_registers_it() {
    let server = server().await;
    let discovery = client(&server).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    registration.draining().await.unwrap();
    discovery.deregister(registration.id()).await.unwrap();
    registration.update(|instance| instance.weight(3)).await.unwrap();
    let back = known(&discovery).await;
    assert_eq!((back.weight, back.status), (3, InstanceStatus::Draining), "with everything that was wished for");
    discovery.deregister(registration.id()).await.unwrap();
    registration.passing().await.unwrap();
    assert_eq!(known(&discovery).await.status, InstanceStatus::Passing);
    server.stop().await;
}

#[tokio::test]
async fn a_drain_by_an_operator_is_ended_by_an_operator_alone() {
    let server = server().await;
    let (discovery, operator) = (client(&server).await, client(&server).await);
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    operator.drain(registration.id(), true).await.unwrap();
    registration.passing().await.unwrap();
    assert_eq!(known(&discovery).await.status, InstanceStatus::Draining);
    // Nor does it end when the process is restarted at another address, and registers under its id.
    let id = registration.id().clone();
    drop(registration);
    let moved = client(&server).await;
    let registration = moved.register(instance("product", 7071).id(id.as_str()).unwrap()).await.unwrap();
    assert_eq!(known(&discovery).await.status, InstanceStatus::Draining);
    operator.drain(&id, false).await.unwrap();
    discovery.get("product").await.unwrap();
    let again = registration.clone();
    registration.close().await.unwrap();
    assert!(matches!(again.update(|instance| instance.weight(2)).await, Err(Error::Closed)));
    again.close().await.unwrap();
    server.stop().await;
}
