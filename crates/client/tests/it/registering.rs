//! Registrations that keep themselves alive.

use std::time::Duration;

use roundsman::{Check, Discovery, Error, InstanceStatus, NewInstance, Query, RegistrationState, Scope};
use tokio::time::sleep;

use crate::support::{Network, State, client, eventually, instance, nowhere, server, server_on, soon};

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
    registration.drain(true).await.unwrap();
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
    // It must be there at every look for more than two ttls; the server's clock says when that is over.
    loop {
        let instance = discovery.get("product").await.expect("never away");
        let status = discovery.status().await.unwrap();
        if status.now.since(instance.registered_at) > Duration::from_millis(2_500) {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    // Without renewals it goes.
    drop(registration);
    eventually("it is evicted", async || discovery.get("product").await.is_err()).await;
    server.stop().await;
}

#[tokio::test]
async fn moves_to_the_second_server() {
    let (first, second) = (server().await, server().await);
    let servers = [first.rpc_addr(), second.rpc_addr()];
    let discovery = Discovery::connect(servers).await.unwrap();
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
    let discovery = Discovery::connect(network.addr).await.unwrap();
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
