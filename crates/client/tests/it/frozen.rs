//! A frozen server that is named before a healthy one: nobody waits for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use roundsman::Discovery;
use tokio::{net::TcpListener, task::JoinSet, time::advance};

use crate::{
    failing::impostor,
    support::{HANG, Network, State, StoppedClock, client, eventually, instance, server, soon},
};

/// For so long a server is waited for before the next one is asked beside it, and a millisecond that timers round up to.
const HEAD_START: Duration = Duration::from_millis(301);

/// A server that accepts, reads and never answers.
struct Frozen {
    addr: SocketAddr,
    /// How many have greeted it, and how many of them have gone again.
    greeted: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Frozen {
    async fn new() -> Self {
        let (greeted, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&greeted), Arc::clone(&left));
        let (addr, tasks) = impostor(move |mut framed| {
            let (greeted, left) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
            async move {
                if framed.next().await.is_some() {
                    greeted.fetch_add(1, Ordering::Relaxed);
                    assert!(framed.next().await.is_none(), "it hears nothing but a goodbye");
                    left.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
        Self { addr, greeted, left, _tasks: tasks }
    }

    async fn is_greeted(&self, times: usize) {
        eventually("it is greeted", async || self.greeted.load(Ordering::Relaxed) == times).await;
    }

    async fn is_left(&self, times: usize) {
        eventually("it is left", async || self.left.load(Ordering::Relaxed) == times).await;
    }
}

#[tokio::test]
async fn another_server_is_asked_beside_one_that_is_frozen() {
    let (frozen, healthy) = (Frozen::new().await, server().await);
    let kept = client(&healthy).await.register(instance("product", 7070)).await.unwrap();
    let clock = StoppedClock::new();
    let connecting = Discovery::builder().servers([frozen.addr, healthy.rpc_addr()]).timeout(HANG).connect();
    let (discovery, ()) = tokio::join!(clock.still(connecting), async {
        frozen.is_greeted(1).await;
        advance(HEAD_START).await;
    });
    let discovery = discovery.unwrap();
    frozen.is_left(1).await;
    assert_eq!(clock.still(discovery.get("product")).await.unwrap().id, *kept.id());
    drop(clock);
    healthy.stop().await;
}

#[tokio::test]
async fn a_server_of_which_nobody_even_accepts_is_no_obstacle_either() {
    // What a stopped process looks like: the system answers for it, until its backlog is full.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let healthy = server().await;
    let servers = [stopped.local_addr().unwrap(), healthy.rpc_addr()];
    let discovery = soon(Discovery::builder().servers(servers).timeout(HANG).connect()).await.unwrap();
    assert_eq!(soon(discovery.services()).await.unwrap(), []);
    let error = soon(Discovery::builder().servers(servers[0]).timeout(Duration::from_millis(100)).connect()).await;
    assert!(error.unwrap_err().to_string().contains("no answer to the handshake within 100ms"));
    healthy.stop().await;
}

#[tokio::test]
async fn a_frozen_server_that_thaws_in_time_is_as_good_as_any() {
    let healthy = server().await;
    // It thaws when another was asked, which never answers.
    let (slow, other) = (Network::to(healthy.rpc_addr()).await, Frozen::new().await);
    let clock = StoppedClock::new();
    slow.become_(State::Slow(2 * HEAD_START));
    let connecting = Discovery::builder().servers([slow.addr, other.addr]).timeout(HANG).connect();
    let (discovery, ()) = tokio::join!(clock.still(connecting), async {
        eventually("it is met", async || slow.connections.load(Ordering::Relaxed) == 1).await;
        advance(HEAD_START).await;
        other.is_greeted(1).await;
        // There and back, within the time that a handshake has.
        clock.passing(HEAD_START, other.is_left(1)).await;
    });
    assert!(discovery.is_ok(), "{discovery:?}");
    drop(clock);
    healthy.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_used_while_the_only_server_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let healthy = server().await;
    let kept = client(&healthy).await.register(instance("product", 7070)).await.unwrap();
    let earlier = Discovery::builder().servers(healthy.rpc_addr()).snapshot_file(&path).timeout(HANG);
    let earlier = earlier.connect().await.unwrap();
    assert_eq!(earlier.resolver("product").await.unwrap().instances().len(), 1);
    soon(earlier.close()).await;

    let frozen = Frozen::new().await;
    let clock = StoppedClock::new();
    let later = Discovery::builder().servers(frozen.addr).snapshot_file(&path).timeout(HANG).connect_lazy().unwrap();
    let resolving = later.resolver("product").into_future();
    let (products, ()) = tokio::join!(
        // What the file is worth is known a moment later, long before the handshake is given up.
        clock.passing(Duration::from_millis(5), resolving),
        frozen.is_greeted(1)
    );
    let products = products.unwrap();
    assert_eq!(frozen.left.load(Ordering::Relaxed), 0, "no try has failed yet");
    assert_eq!(products.pick().unwrap().id, *kept.id());
    assert!(products.snapshot().stale().is_some());
    drop(clock);
    healthy.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_used_while_a_server_lets_us_in_and_answers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let healthy = server().await;
    let near = client(&healthy).await;
    let _kept = near.register(instance("product", 7070).id("product-1").unwrap()).await.unwrap();
    let earlier = Discovery::builder().servers(healthy.rpc_addr()).snapshot_file(&path).timeout(HANG);
    let earlier = earlier.connect().await.unwrap();
    drop(earlier.resolver("product").await.unwrap());
    soon(earlier.close()).await;
    // It changes while nobody looks.
    let _new = near.register(instance("product", 7071).id("product-2").unwrap()).await.unwrap();

    let network = Network::to(healthy.rpc_addr()).await;
    let later = Discovery::builder().servers(network.addr).snapshot_file(&path).timeout(HANG);
    let later = later.connect().await.unwrap();
    network.become_(State::Frozen);
    let products = soon(later.resolver("product").into_future()).await.unwrap();
    assert_eq!((products.instances().len(), products.snapshot().stale().is_some()), (1, true), "as it was saved");
    // Another connection takes over, and corrects it.
    network.become_(State::Cut);
    network.become_(State::Whole);
    eventually("it is corrected", async || products.instances().len() == 2 && products.snapshot().stale().is_none())
        .await;
    soon(later.close()).await;
    healthy.stop().await;
}
