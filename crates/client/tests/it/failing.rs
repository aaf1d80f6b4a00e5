//! Servers that are away, frozen, full of garbage, or no discovery servers at all.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use roundsman::{Discovery, Error, Query};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::advance,
};
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

use crate::support::{
    HANG, Network, State, StoppedClock, client, connect, eventually, hasty, instance, nowhere, server, server_on, soon,
};

/// A listener that treats each connection in its own way.
pub(crate) async fn impostor<F>(
    behave: impl Fn(Framed<TcpStream, LengthDelimitedCodec>) -> F + Send + 'static,
) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(behave(Framed::new(stream, LengthDelimitedCodec::new())));
        }
    });
    (addr, tasks)
}

#[tokio::test]
async fn an_absent_server_is_named() {
    let (a, b) = (nowhere().await, nowhere().await);
    let error = soon(Discovery::connect([a, b])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no discovery server could be reached (tried {a}: connection refused; {b}: connection refused)")
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_call_while_the_server_is_away_fails_within_its_deadline() {
    let server = server().await;
    let addr = server.rpc_addr();
    let discovery = hasty(addr, Duration::from_millis(300)).await;
    server.stop().await;
    eventually("a round has failed", async || discovery.disconnected().await.to_string().contains("refused")).await;
    let error = soon(discovery.get("product")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no discovery server could be reached (tried {addr}: connection refused)"));
    // And once it is back, calls wait for the connection instead of failing.
    let server = server_on(addr).await;
    soon(discovery.connected()).await.unwrap();
    eventually("it answers", async || discovery.get("product").await.unwrap_err().is_not_found()).await;
    server.stop().await;
}

#[tokio::test]
async fn settings_are_checked_before_anything_is_connected() {
    let field = |builder: roundsman::Builder| match builder.connect_lazy().unwrap_err() {
        Error::Invalid(invalid) => invalid.field,
        other => panic!("{other}"),
    };
    assert_eq!(field(Discovery::builder().namespace("a b")), "namespace");
    assert_eq!(field(Discovery::builder().service("a b")), "service");
    assert_eq!(field(Discovery::builder().servers("nowhere")), "server");
    assert_eq!(field(Discovery::builder().timeout(Duration::ZERO)), "timeout");
}

#[tokio::test]
async fn a_refused_handshake_is_a_sentence() {
    let (addr, _tasks) = impostor(async |mut framed| {
        assert!(framed.next().await.unwrap().unwrap().starts_with(b"{\"roundsman\":3"));
        framed.send(Bytes::from_static(br#"{"ok":false,"error":"speak version 9"}"#)).await.unwrap();
    })
    .await;
    let error = soon(Discovery::connect(addr)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no discovery server let us in (tried {addr}: speak version 9)"));
    assert!(matches!(error, Error::Refused { .. }) && !error.is_retryable());
}

#[tokio::test]
async fn the_http_port_is_recognised_as_the_wrong_one() {
    let server = server().await;
    let error = soon(Discovery::connect(server.http_addr())).await.unwrap_err();
    assert!(error.to_string().contains("is this its RPC port?"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up() {
    let greeted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&greeted);
    let (silent, _tasks) = impostor(move |mut framed| {
        let counter = Arc::clone(&counter);
        async move {
            drop(framed.next().await);
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let clock = StoppedClock::new();
    // The time is up once it was greeted, and not sooner.
    let limit = Duration::from_millis(100);
    let late = async |times: usize| {
        eventually("it is greeted", async || greeted.load(Ordering::Relaxed) == times).await;
        advance(2 * limit).await;
    };
    let connecting = Discovery::builder().servers(silent).timeout(limit).connect();
    let (error, ()) = tokio::join!(clock.still(connecting), late(1));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no answer to the handshake within 100ms"), "{error}");
    // Nor does it stand in the way of one that does.
    let server = server().await;
    let both = Discovery::builder().servers([silent, server.rpc_addr()]).timeout(limit);
    let (discovery, ()) = tokio::join!(clock.still(both.connect()), late(2));
    drop(clock);
    eventually("it answers", async || discovery.as_ref().unwrap().services().await.is_ok()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_frozen_server_is_left_for_another() {
    let (frozen, healthy) = (server().await, server().await);
    let network = Network::to(frozen.rpc_addr()).await;
    let clock = StoppedClock::new();
    let builder = Discovery::builder().servers([network.addr, healthy.rpc_addr()]);
    let discovery = builder.timeout(HANG).connect().await.unwrap();
    assert_eq!(discovery.services().await.unwrap(), []);
    let kept = client(&healthy).await.register(instance("product", 7070)).await.unwrap();
    network.become_(State::Frozen);
    let error = clock.passing(HANG + Duration::from_millis(1), discovery.services()).await.unwrap_err();
    assert!(matches!(&error, Error::Deadline { server, .. } if **server == *network.addr.to_string()), "{error}");
    assert!(error.to_string().ends_with("did not answer within 30s"), "{error}");
    let found = clock.passing(Duration::from_millis(50), discovery.get("product")).await.unwrap();
    assert_eq!(found.id, *kept.id());
    drop(clock);
    frozen.stop().await;
    healthy.stop().await;
}

#[tokio::test]
async fn a_frozen_server_is_noticed_by_those_who_only_watch() {
    let (frozen, healthy) = (server().await, server().await);
    let network = Network::to(frozen.rpc_addr()).await;
    let discovery = connect([network.addr, healthy.rpc_addr()]).await.unwrap();
    let mut changes = discovery.watch(Query::default()).unwrap();
    soon(changes.next()).await.unwrap();
    network.become_(State::Frozen);
    let _kept = client(&healthy).await.register(instance("product", 7070)).await.unwrap();
    // Nobody calls anything: the heartbeat has to find out.
    let event = soon(changes.next()).await.unwrap();
    // Only what differs, or all of it, which is the same here.
    let told = match event {
        roundsman::Event::Snapshot(all) => all.len() == 1,
        roundsman::Event::Changed(instance) => instance.name.as_str() == "product",
        roundsman::Event::Removed(_) => false,
    };
    assert!(told);
    frozen.stop().await;
    healthy.stop().await;
}

#[tokio::test]
async fn garbage_instead_of_answers_fails_within_the_deadline() {
    let (addr, _tasks) = impostor(async |mut framed| {
        framed.next().await.unwrap().unwrap();
        framed.send(Bytes::from_static(br#"{"ok":true,"version":"1","server":"x"}"#)).await.unwrap();
        while let Some(Ok(_)) = framed.next().await {
            framed.send(Bytes::from_static(b"\xff\xff\xff\xff\xff")).await.unwrap();
        }
    })
    .await;
    let clock = StoppedClock::new();
    let discovery = Discovery::builder().servers(addr).timeout(HANG).connect().await.unwrap();
    let (error, ()) = tokio::join!(clock.still(discovery.services()), async {
        clock.still(discovery.disconnected()).await;
        // It would try again in a moment; instead, time is up.
        advance(HANG + Duration::from_millis(1)).await;
    });
    let error = error.unwrap_err();
    drop(clock);
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("the connection broke"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_on_everyone_is_not_hammered() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    network.become_(State::Cut);
    let lazy = Discovery::builder().servers(network.addr).timeout(Duration::from_secs(2)).connect_lazy().unwrap();
    let error = soon(lazy.services()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // Limits of 50 ms, 100 ms, 200 ms, … and never less than a tenth of each; how many that makes is tested with the pauses.
    let tries = network.connections.load(Ordering::Relaxed);
    assert!((1..=50).contains(&tries), "{tries} tries");
    server.stop().await;
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    network.become_(State::Slow(Duration::from_millis(50)));
    let slow = soon(Discovery::builder().servers(network.addr).timeout(HANG).connect()).await.unwrap();
    let kept = slow.register(instance("product", 7070)).await.unwrap();
    let products = soon(slow.resolver("product").into_future()).await.unwrap();
    assert_eq!(products.pick().unwrap().id, *kept.id());
    let another = client(&server).await.register(instance("product", 7071)).await.unwrap();
    eventually("it is told, if late", async || products.instances().len() == 2).await;
    another.close().await.unwrap();
    eventually("it is told, if late", async || products.instances().len() == 1).await;
    assert_eq!(network.connections.load(Ordering::Relaxed), 1, "slow is not broken");
    server.stop().await;
}

#[tokio::test]
async fn a_resolver_outlasts_a_server_that_answers_garbage() {
    let server = server().await;
    let addr = server.rpc_addr();
    let discovery = client(&server).await;
    let kept = client(&server).await.register(instance("product", 7070)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    server.stop().await;
    let listener = TcpListener::bind(addr).await.unwrap();
    let mut accepted = 0;
    let garbage = async {
        // The first may be one that was on its way to the server before.
        while accepted < 4 {
            let (stream, _) = listener.accept().await.unwrap();
            accepted += 1;
            let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
            let Some(Ok(_)) = framed.next().await else { continue };
            drop(framed.send(Bytes::from_static(br#"{"ok":true,"version":"1","server":"x"}"#)).await);
            drop(framed.next().await);
            drop(framed.send(Bytes::from_static(b"\x00\xff\xff\xff\xff\xff")).await);
        }
    };
    soon(garbage).await;
    drop(listener);
    assert!(products.snapshot().stale().is_some());
    assert_eq!(products.pick().unwrap().id, *kept.id(), "the last good list");
    let server = server_on(addr).await;
    let kept = client(&server).await.register(instance("product", 7071)).await.unwrap();
    eventually("it follows the real server", async || products.instances().iter().any(|i| i.id == *kept.id())).await;
    server.stop().await;
}
