//! The serving side: leaving in good order, closing, one's own health, the client of the whole process.

use std::{process::Stdio, thread, time::Duration};

use roundsman::{Discovery, Error, Event, Health, HealthStatus, InstanceStatus, Query, Registration, Scope};
use roundsman_discovery::Server;
use tokio::{
    process::Command,
    runtime::{Handle, Runtime},
    sync::oneshot,
    task::{JoinSet, yield_now},
    time::Instant,
};

use crate::support::{
    HANG, Network, State, StoppedClock, client, connect, eventually, instance, nowhere, server, server_on, soon,
};

/// A client whose instances give their callers so long to notice.
async fn noticed(server: &Server, notice: Duration) -> Discovery {
    Discovery::builder().servers(server.rpc_addr()).notice(notice).timeout(HANG).connect().await.unwrap()
}

/// Everything that the server knows.
async fn all(discovery: &Discovery) -> Vec<InstanceStatus> {
    let all = discovery.list(Query::default().scope(Scope::All)).await.unwrap();
    all.iter().map(|instance| instance.status).collect()
}

#[tokio::test]
async fn leaving_drains_then_waits_then_deregisters() {
    let server = server().await;
    let discovery = noticed(&server, Duration::from_millis(20)).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let _other = discovery.register(instance("order", 6060)).await.unwrap();
    let mut changes = discovery.watch(Query::service("product".try_into().unwrap()).scope(Scope::All)).unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(all)) if all.len() == 1));

    let (signal, signalled) = oneshot::channel::<()>();
    let leaving = registration.graceful(async { drop(signalled.await) });
    let mut tasks = JoinSet::new();
    tasks.spawn(leaving);
    // It can be used as ever until the signal comes.
    registration.update(|instance| instance.weight(2)).await.unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Changed(one)) if one.weight == 2));
    signal.send(()).unwrap();
    let Some(Event::Changed(drained)) = soon(changes.next()).await else { panic!("drained first") };
    assert_eq!(drained.status, InstanceStatus::Draining);
    let Some(Event::Removed(removed)) = soon(changes.next()).await else { panic!("then removed") };
    assert_eq!(&*removed.reason, "deregistered");
    soon(tasks.join_next()).await.unwrap().unwrap();
    assert!(matches!(registration.draining().await, Err(Error::Closed)));
    server.stop().await;
}

#[tokio::test]
async fn callers_get_the_time_to_notice() {
    let server = server().await;
    let discovery = noticed(&server, Duration::from_secs(600)).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(registration.graceful(async {}));
    eventually("it drains", async || all(&discovery).await == [InstanceStatus::Draining]).await;
    for _ in 0..20 {
        assert_eq!(all(&discovery).await, [InstanceStatus::Draining]);
        assert!(tasks.try_join_next().is_none());
    }
    // Given up, the instance is there as before.
    tasks.shutdown().await;
    registration.passing().await.unwrap();
    assert_eq!(all(&discovery).await, [InstanceStatus::Passing]);
    server.stop().await;
}

#[tokio::test]
async fn leaving_never_hangs_without_a_server() {
    let addr = nowhere().await;
    let lazy = || Discovery::builder().servers(addr).timeout(HANG).connect_lazy().unwrap();
    let clock = StoppedClock::new();
    // It never was there.
    let discovery = lazy();
    let registration = discovery.register_in_background(instance("product", 7070)).unwrap();
    clock.passing(HANG, registration.graceful(async {})).await;
    drop(clock);
    assert!(matches!(registration.update(|instance| instance).await, Err(Error::Closed)));
    // It went, for several.
    let server = server_on(addr).await;
    let discovery = lazy();
    let mut kept = Vec::new();
    for (name, port) in [("product", 7070), ("order", 6060)] {
        kept.push(discovery.register(instance(name, port)).await.unwrap());
    }
    server.stop().await;
    let clock = StoppedClock::new();
    clock.passing(HANG, discovery.graceful(async {})).await;
    clock.passing(HANG, discovery.close()).await;
}

#[tokio::test]
async fn leaving_never_hangs_with_a_frozen_server() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let discovery = Discovery::builder().servers(network.addr).timeout(HANG).connect().await.unwrap();
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    network.become_(State::Frozen);
    let clock = StoppedClock::new();
    clock.passing(HANG, registration.graceful(async {})).await;
    clock.passing(HANG, discovery.close()).await;
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn everything_a_client_registered_leaves_together() {
    let server = server().await;
    let discovery = noticed(&server, Duration::from_millis(1)).await;
    let mut kept = Vec::new();
    for (name, port) in [("product", 7070), ("order", 6060), ("order", 6061)] {
        kept.push(discovery.register(instance(name, port)).await.unwrap());
    }
    let others = client(&server).await.register(instance("till", 9090)).await.unwrap();
    soon(discovery.graceful(async {})).await;
    // The client is still of use: requests under way may need it.
    assert_eq!(all(&discovery).await, [InstanceStatus::Passing], "and what others registered stays");
    assert!(kept.iter().all(Registration::is_draining) && !others.is_draining());
    discovery.close().await;
    server.stop().await;
}

#[tokio::test]
async fn closing_deregisters_all() {
    let server = server().await;
    let (discovery, other) = (client(&server).await, client(&server).await);
    let mut kept = Vec::new();
    for n in 0..5 {
        kept.push(discovery.register(instance(&format!("service-{n}"), 7000 + n)).await.unwrap());
    }
    drop(discovery.register(instance("dropped", 7070)).await.unwrap());
    soon(discovery.close()).await;
    let left = other.list(Query::default().scope(Scope::All)).await.unwrap();
    assert_eq!(left.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["dropped"]);
    assert!(matches!(kept[0].update(|instance| instance).await, Err(Error::Closed)));
    assert!(matches!(discovery.register(instance("late", 7070)).await, Err(Error::Closed)));
    server.stop().await;
}

#[tokio::test]
async fn closing_without_a_server_takes_no_longer_than_a_call() {
    let server = server().await;
    let discovery = client(&server).await;
    let _kept = [
        discovery.register(instance("product", 7070)).await.unwrap(),
        discovery.register_in_background(instance("order", 6060)).unwrap(),
    ];
    server.stop().await;
    // A call may take so long; a second one would take twice that.
    let (clock, began) = (StoppedClock::new(), Instant::now());
    clock.passing(HANG / 10, discovery.close()).await;
    clock.passing(HANG / 10, discovery.close()).await;
    assert!(began.elapsed() <= HANG + HANG / 5, "{:?} of the runtime's time", began.elapsed());
}

/// A server in a runtime of its own, so that the tasks of this one are the client's alone.
fn server_elsewhere() -> (std::net::SocketAddr, oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let (address, addresses) = std::sync::mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        Runtime::new().unwrap().block_on(async {
            let server = server().await;
            address.send(server.rpc_addr()).unwrap();
            drop(stopped.await);
            server.stop().await;
        });
    });
    (addresses.recv().unwrap(), stop, thread)
}

#[tokio::test]
async fn after_close_nothing_of_the_library_runs() {
    let (addr, stop, thread) = server_elsewhere();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 0);
    let files = tempfile::tempdir().unwrap();
    let builder = Discovery::builder().servers(addr).timeout(HANG);
    let discovery = builder.snapshot_file(files.path().join("peers")).connect().await.unwrap();
    let product = discovery.register(instance("product", 7070)).await.unwrap();
    let order = discovery.register_in_background(instance("order", 6060)).unwrap();
    order.registered().await;
    let products = discovery.resolver("product").await.unwrap();
    let mut changes = discovery.watch(Query::default()).unwrap();
    soon(changes.next()).await.unwrap();
    let leaving = order.graceful(std::future::pending());
    let health = Health::new().check("disk", async || Ok::<(), String>(()));
    health.follow(&product);
    health.report().await;
    assert!(tasks() > 0);
    soon(discovery.close()).await;
    // What has ended is taken off the books when its thread comes round.
    yield_now().await;
    assert_eq!(tasks(), 0, "while handles of all kinds are still held");
    drop((leaving, products, changes, product));
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn health_shows_when_everything_it_follows_drains() {
    let server = server().await;
    let discovery = client(&server).await;
    let product = discovery.register(instance("product", 7070)).await.unwrap();
    let order = discovery.register(instance("order", 6060)).await.unwrap();
    let health = Health::new().check("disk", async || Err("full"));
    health.follow(&product);
    health.follow(&order);
    product.draining().await.unwrap();
    assert_eq!(health.report().await.http_status(), 503, "one of two still serves");
    order.close().await.unwrap();
    let order = discovery.register(instance("order", 6060)).await.unwrap();
    order.draining().await.unwrap();
    let health = Health::new().check("disk", async || Err("full"));
    health.follow(&product);
    health.follow(&order);
    let report = health.report().await;
    assert_eq!((report.status, report.http_status()), (HealthStatus::Draining, 200));
    assert_eq!(report.checks["disk"].error.as_deref(), Some("full"));
    product.passing().await.unwrap();
    assert_eq!(health.report().await.status, HealthStatus::Failing);
    server.stop().await;
}

/// Runs one of the ignored tests below in a process of its own, with this environment.
async fn elsewhere(test: &str, environment: &[(&str, String)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("ROUNDSMAN_SERVER").env_remove("ROUNDSMAN_NAMESPACE");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = soon(command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn the_global_client_comes_from_the_environment() {
    let server = server().await;
    let environment = [("ROUNDSMAN_SERVER", server.rpc_addr().to_string()), ("ROUNDSMAN_NAMESPACE", "shop".to_owned())];
    elsewhere("serving::global_from_the_environment", &environment).await;
    let shop = Discovery::builder().servers(server.rpc_addr()).namespace("shop").timeout(HANG).connect().await.unwrap();
    assert_eq!(shop.get("product").await.unwrap().address.to_string(), "127.0.0.1:7070");
    server.stop().await;
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by the_global_client_comes_from_the_environment"]
async fn global_from_the_environment() {
    let discovery = Discovery::global().unwrap();
    drop(discovery.register(instance("product", 7070)).await.unwrap());
    assert!(Discovery::global().unwrap().get("product").await.is_ok(), "the same one again");
    assert!(discovery.set_global().is_err(), "there is one already");
}

#[tokio::test]
async fn the_global_client_can_be_set_once() {
    let server = server().await;
    let environment = [("ROUNDSMAN_SERVER", "nowhere".to_owned()), ("SERVER", server.rpc_addr().to_string())];
    elsewhere("serving::global_by_hand", &environment).await;
    server.stop().await;
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by the_global_client_can_be_set_once"]
#[allow(clippy::disallowed_methods, reason = "how the other process learns the address")]
async fn global_by_hand() {
    let refused = Discovery::global().unwrap_err();
    assert!(matches!(&refused, Error::Invalid(invalid) if invalid.field == "server"), "{refused}");
    let server = std::env::var("SERVER").unwrap();
    let first = connect(server.as_str()).await.unwrap();
    first.clone().set_global().unwrap();
    assert!(connect(server.as_str()).await.unwrap().set_global().is_err());
    let _kept = first.register(instance("product", 7070)).await.unwrap();
    assert!(Discovery::global().unwrap().get("product").await.is_ok());
}
