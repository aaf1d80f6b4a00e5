//! Servers that answer twice, too soon, without end; callers in a hurry; more watches than there is room for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use roundsman::{Codec, Discovery, Error, Event, Query};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

use crate::{
    failing::impostor,
    support::{HANG, Network, State, StoppedClock, client, connect, eventually, instance, server, soon},
};

type Wire = Framed<TcpStream, LengthDelimitedCodec>;

/// A server that speaks JSON, and answers a call with these messages: each with the id that is added to the call's.
async fn answering(
    answers: impl Fn(&Value) -> Vec<(u64, Value)> + Send + Sync + 'static,
) -> (std::net::SocketAddr, JoinSet<()>) {
    let answers = Arc::new(answers);
    impostor(move |wire| serve(wire, Arc::clone(&answers))).await
}

async fn serve(mut wire: Wire, answers: Arc<impl Fn(&Value) -> Vec<(u64, Value)>>) {
    drop(wire.next().await);
    let welcome = json!({ "ok": true, "roundsman": 3, "version": "1", "server": "x" });
    drop(wire.send(Bytes::from(welcome.to_string())).await);
    while let Some(Ok(frame)) = wire.next().await {
        let said: Value = serde_json::from_slice(&frame).unwrap();
        let Some(id) = said["Request"]["id"].as_u64() else { continue };
        for (more, message) in answers(&said["Request"]["message"]) {
            let answer = json!({ "request_id": id + more, "message": { "Ok": message } });
            drop(wire.send(Bytes::from(answer.to_string())).await);
        }
    }
}

async fn in_json(addr: std::net::SocketAddr) -> Discovery {
    soon(Discovery::builder().servers(addr).codec(Codec::Json).timeout(HANG).connect()).await.unwrap()
}

fn unchanged() -> Value {
    json!({ "Watch": { "Ok": { "cursor": { "epoch": 1, "revision": 1 }, "snapshot": false, "instances": [], "removed": [] } } })
}

#[tokio::test]
async fn answers_that_come_twice_or_to_nobody_harm_no_call() {
    let services = || json!({ "Services": { "Ok": [] } });
    let (addr, _tasks) = answering(move |_| vec![(1_000, services()), (0, services()), (0, services())]).await;
    let discovery = in_json(addr).await;
    for _ in 0..20 {
        assert_eq!(soon(discovery.services()).await.unwrap(), []);
    }
    // An answer to another question than the one that was asked is a failure of this call alone, and no panic.
    assert!(soon(discovery.services()).await.is_ok());
}

#[tokio::test]
async fn a_server_that_never_waits_for_news_is_not_asked_without_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let (addr, _tasks) = answering(move |message| {
        if message.get("Watch").is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        vec![(0, unchanged())]
    })
    .await;
    let discovery = in_json(addr).await;
    let clock = StoppedClock::new();
    let resolver = discovery.resolver_for(Query::default()).in_background().unwrap();
    let mut changes = discovery.watch(Query::default()).unwrap();
    let first = clock.still(changes.next()).await;
    assert!(matches!(first, Some(Event::Snapshot(none)) if none.is_empty()));
    let watching = async {
        drop(changes.next().await);
    };
    tokio::select! {
        () = watching => panic!("there are no news"),
        () = eventually("both have asked again", async || asked.load(Ordering::Relaxed) >= 5) => {}
    }
    // Without any time that passes there are no more questions, however long this takes.
    for _ in 0..50 {
        eventually("a moment passes", async || true).await;
        tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(2))).await.unwrap();
        assert!(asked.load(Ordering::Relaxed) <= 8, "{asked:?}");
    }
    drop((clock, resolver));
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let page = || {
        let cursor = json!({ "epoch": 1, "revision": 1 });
        json!({ "List": { "Ok": { "cursor": cursor, "instances": [], "next": "more" } } })
    };
    let (addr, _tasks) = answering(move |_| vec![(0, page())]).await;
    let discovery = in_json(addr).await;
    let error = soon(discovery.list(Query::default())).await.unwrap_err();
    assert!(matches!(&error, Error::Failed { detail, .. } if detail.contains("more than 4096 pages")), "{error}");
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_cost_others_their_connection() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    network.become_(State::Slow(Duration::from_millis(100)));
    let discovery = soon(connect(network.addr)).await.unwrap();
    // What is left to be asked is whether there is such a service, and nothing else is answered meanwhile: the server might as
    // well be frozen.
    let _list = soon(discovery.resolver("nobody").even_if_unknown().into_future()).await.unwrap();
    for _ in 0..3 {
        let hasty = discovery.resolver("nobody").timeout(Duration::from_millis(20));
        assert!(matches!(soon(hasty.into_future()).await, Err(Error::Deadline { .. })));
    }
    assert!(soon(discovery.get("nobody")).await.unwrap_err().is_not_found());
    assert_eq!(network.connections.load(Ordering::Relaxed), 1, "slow is not dead");
    server.stop().await;
}

#[tokio::test]
async fn callers_in_a_hurry_find_out_that_a_server_is_frozen_all_the_same() {
    let (frozen, healthy) = (server().await, server().await);
    let network = Network::to(frozen.rpc_addr()).await;
    let builder = Discovery::builder().servers([network.addr, healthy.rpc_addr()]);
    let discovery = soon(builder.timeout(Duration::from_millis(500)).connect()).await.unwrap();
    network.become_(State::Frozen);
    eventually("the other one answers", async || {
        discovery.services().await.is_ok() && network.connections.load(Ordering::Relaxed) >= 1
    })
    .await;
    frozen.stop().await;
    healthy.stop().await;
}

#[tokio::test]
async fn more_watches_than_there_is_room_for_keep_nobody_from_being_answered() {
    let server = server().await;
    // Less than watches wait, so that whoever has to wait for one of them is late.
    let builder = Discovery::builder().servers(server.rpc_addr()).timeout(Duration::from_secs(15));
    let discovery = builder.connect().await.unwrap();
    let orders = discovery.resolver("order").even_if_unknown().await.unwrap();
    let (seen, mut watching) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let ready = Arc::new(AtomicUsize::new(0));
    for _ in 0..1_200 {
        let mut changes = discovery.watch(Query::service("product".parse().unwrap())).unwrap();
        let (seen, ready) = (Arc::clone(&seen), Arc::clone(&ready));
        watching.spawn(async move {
            assert!(matches!(changes.next().await, Some(Event::Snapshot(none)) if none.is_empty()));
            ready.fetch_add(1, Ordering::Relaxed);
            while let Some(event) = changes.next().await {
                if matches!(event, Event::Changed(_)) {
                    seen.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            changes
        });
    }
    let far = client(&server).await;
    eventually("many wait", async || far.status().await.unwrap().doors.watches >= 900).await;
    // Lookups, registrations and resolvers go on as if they were alone.
    for _ in 0..50 {
        let error = soon(discovery.get("nobody")).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    eventually("all know the present", async || ready.load(Ordering::Relaxed) == 1_200).await;
    let order = soon(discovery.register(instance("order", 6060))).await.unwrap();
    soon(discovery.renew(order.id())).await.unwrap();
    eventually("the resolver is told", async || orders.pick().is_some()).await;
    let _product = soon(discovery.register(instance("product", 7070))).await.unwrap();
    eventually("everybody is told", async || seen.load(Ordering::Relaxed) == 1_200).await;
    soon(discovery.close()).await;
    while let Some(ended) = soon(watching.join_next()).await {
        drop(ended.unwrap());
    }
    server.stop().await;
}

#[tokio::test]
async fn more_subsets_than_there_is_room_for_keep_no_list_from_being_told() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut subsets = Vec::new();
    for n in 0..150 {
        let subset = discovery.resolver("product").even_if_unknown().subset_as(format!("client-{n}"), 1);
        subsets.push(soon(subset.into_future()).await.unwrap());
    }
    let orders = discovery.resolver("order").even_if_unknown().await.unwrap();
    eventually("many wait", async || discovery.status().await.unwrap().doors.watches >= 100).await;
    let _order = soon(discovery.register(instance("order", 6060))).await.unwrap();
    eventually("the resolver is told", async || orders.pick().is_some()).await;
    let _product = soon(discovery.register(instance("product", 7070))).await.unwrap();
    eventually("all subsets are told", async || subsets.iter().all(|subset| subset.pick().is_some())).await;
    soon(discovery.close()).await;
    server.stop().await;
}

#[tokio::test]
async fn two_clients_in_a_process_do_not_mix() {
    let (one, other) = (server().await, server().await);
    let (near, far) = (client(&one).await, client(&other).await);
    let kept = near.register(instance("product", 7070)).await.unwrap();
    let (here, there) =
        (near.resolver("product").await.unwrap(), far.resolver("product").even_if_unknown().await.unwrap());
    assert_eq!((here.pick().unwrap().id.clone(), there.instances().len()), (kept.id().clone(), 0));
    soon(far.close()).await;
    assert!(near.get("product").await.is_ok() && here.snapshot().stale().is_none());
    assert!(matches!(far.get("product").await, Err(Error::Closed)));
    one.stop().await;
    other.stop().await;
}
