//! Coming back with a digest: what is the same is not told again, and a long answer is shown at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use roundsman::{
    Event, Instance, Query, Watch,
    protocol::{Known, Version},
};
use roundsman_discovery::{Config, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    model::{Model, instance},
    support::{HANG, Network, State, client, connect, eventually, soon},
};

async fn next(watch: &mut Watch) -> Event {
    soon(watch.next()).await.expect("the stream goes on")
}

fn product() -> Query {
    Query::service("product".try_into().unwrap())
}

fn many(count: u32) -> Vec<Arc<Instance>> {
    (0..count).map(|n| instance(&format!("p{n:03}"), 1)).collect()
}

fn has_digest(model: &Model) -> bool {
    model.with(|state| state.asked.iter().any(|asked| matches!(asked.known, Some(Known::Digest(_)))))
}

#[tokio::test]
async fn a_restart_that_changes_nothing_is_no_event_and_a_small_change_a_small_one() {
    let model = Model::start(Version::V3, many(100)).await;
    let discovery = connect(model.addr).await.unwrap();
    let mut watch = discovery.watch(product()).unwrap();
    let resolver = discovery.resolver("product").await.unwrap();
    assert!(matches!(next(&mut watch).await, Event::Snapshot(all) if all.len() == 100));
    let first = resolver.instances();

    // Restarted with its store: nothing is told.
    model.restart(|_| {});
    let quiet = async {
        eventually("both came back and said what they know", async || {
            model.with(|state| state.asked.iter().filter(|asked| asked.after == Some(state.cursor)).count() == 2)
        })
        .await;
    };
    tokio::select! {
        biased;
        event = watch.next() => panic!("{event:?}"),
        () = quiet => {}
    }
    assert!(has_digest(&model));
    eventually("the list is certain again", async || resolver.snapshot().stale().is_none()).await;
    assert!(first.iter().zip(resolver.instances().iter()).all(|(a, b)| Arc::ptr_eq(a, b)), "not one was replaced");

    // Restarted, and one is another, one is gone, one is new.
    model.restart(|state| {
        state.instances.retain(|instance| instance.id.as_str() != "p007");
        state.instances[50] = instance("p051", 9);
        state.instances.push(instance("q", 1));
    });
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(match next(&mut watch).await {
            Event::Removed(removed) => format!("-{} {}", removed.id, removed.reason),
            Event::Changed(instance) => format!("+{} {}", instance.id, instance.weight),
            Event::Snapshot(_) => panic!("only what differs"),
        });
    }
    told[1..].sort_unstable();
    assert_eq!(told, ["-p007 no longer registered", "+p051 9", "+q 1"]);
    eventually("the resolver has it, too", async || {
        let ids: Vec<_> = resolver.instances().iter().map(|instance| instance.id.to_string()).collect();
        ids.len() == 100 && ids.contains(&"q".to_owned()) && !ids.contains(&"p007".to_owned())
    })
    .await;
    assert_eq!(resolver.instances().iter().filter(|new| first.iter().any(|old| Arc::ptr_eq(old, new))).count(), 98);
    discovery.close().await;
}

#[tokio::test]
async fn pages_are_collected_and_shown_at_once() {
    let model = Model::start(Version::V3, many(100)).await;
    model.with(|state| state.page = 7);
    let discovery = connect(model.addr).await.unwrap();
    let mut watch = discovery.watch(product()).unwrap();
    assert!(matches!(next(&mut watch).await, Event::Snapshot(all) if all.len() == 100));
    let pages = model.with(|state| state.asked.iter().filter(|asked| asked.page.is_some()).count());
    assert_eq!(pages, 14);
    let resolver = discovery.resolver("product").await.unwrap();
    assert_eq!(resolver.instances().len(), 100, "never less");
    discovery.close().await;
}

#[tokio::test]
async fn a_page_that_fails_half_way_begins_anew() {
    let model = Model::start(Version::V3, many(30)).await;
    model.with(|state| (state.page, state.refuses_page) = (7, true));
    let discovery = connect(model.addr).await.unwrap();
    let mut watch = discovery.watch(product()).unwrap();
    assert!(matches!(next(&mut watch).await, Event::Snapshot(all) if all.len() == 30));
    let begun = model.with(|state| state.asked.iter().filter(|asked| asked.page.is_none()).count());
    assert!(begun >= 2, "the first answer was of no use");
    model.with(|state| state.refuses_page = true);
    let resolver = soon(discovery.resolver("product").into_future()).await.unwrap();
    assert_eq!(resolver.instances().len(), 30);
    discovery.close().await;
}

/// On a busy server the log no longer reaches back to the first page when the last one is there.
#[tokio::test]
async fn what_changed_between_the_pages_is_told_by_the_digest() {
    let model = Model::start(Version::V3, many(60)).await;
    model.with(|state| {
        state.page = 7;
        state.changes_meanwhile = Some(instance("p003", 5));
    });
    let discovery = connect(model.addr).await.unwrap();
    let mut watch = discovery.watch(product()).unwrap();
    assert!(matches!(next(&mut watch).await, Event::Snapshot(all) if all.len() == 60 && all[3].weight == 1));
    let Event::Changed(changed) = next(&mut watch).await else { panic!("not everything again") };
    assert_eq!((changed.id.as_str(), changed.weight), ("p003", 5));
    assert!(has_digest(&model));
    let snapshots =
        model.with(|state| state.asked.iter().filter(|asked| asked.after.is_none() && asked.page.is_none()).count());
    assert_eq!(snapshots, 1);
    discovery.close().await;
}

#[tokio::test]
async fn a_list_out_of_the_file_is_confirmed_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.json");
    let model = Model::start(Version::V3, many(20)).await;
    let network = Network::to(model.addr).await;
    let lazy = || {
        let builder = roundsman::Discovery::builder().servers(network.addr).timeout(HANG);
        builder.snapshot_file(&file).connect_lazy().unwrap()
    };
    let discovery = lazy();
    let resolver = soon(discovery.resolver("product").into_future()).await.unwrap();
    assert_eq!(resolver.instances().len(), 20);
    discovery.close().await;
    // Another process, while no server is there.
    network.become_(State::Cut);
    model.with(|state| state.asked.clear());
    let discovery = lazy();
    let resolver = soon(discovery.resolver("product").into_future()).await.unwrap();
    let saved = resolver.instances();
    assert!(resolver.snapshot().stale().is_some() && saved.len() == 20);
    network.become_(State::Whole);
    eventually("a server confirms it", async || resolver.snapshot().stale().is_none()).await;
    assert!(has_digest(&model));
    assert!(saved.iter().zip(resolver.instances().iter()).all(|(a, b)| Arc::ptr_eq(a, b)), "it was not sent again");
    discovery.close().await;
}

/// Passes everything on, and counts what goes to the clients.
struct Counter {
    addr: std::net::SocketAddr,
    bytes: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Counter {
    async fn to(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, bytes) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let (mut tasks, counter) = (JoinSet::new(), Arc::clone(&bytes));
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                wires.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), far.split());
                    let there = tokio::io::copy(&mut near_in, &mut far_out);
                    let back = async {
                        let mut piece = vec![0; 16 * 1024];
                        while let Ok(read @ 1..) = far_in.read(&mut piece).await {
                            counter.fetch_add(u64::try_from(read).unwrap(), Ordering::Relaxed);
                            near_out.write_all(&piece[..read]).await?;
                        }
                        std::io::Result::Ok(())
                    };
                    tokio::select! {
                        _ = there => {}
                        _ = back => {}
                    }
                });
            }
        });
        Self { addr, bytes, _tasks: tasks }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_watchers_hear_nothing_of_a_restart() {
    const WATCHERS: usize = 50;
    const INSTANCES: u16 = 300;
    let folder = tempfile::tempdir().unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = |rpc| Config {
        rpc,
        http: any,
        store: format!("sqlite:{}", folder.path().join("roundsman.db").display()).parse().unwrap(),
        drain_deadline: Duration::from_millis(200),
        ..Config::default()
    };
    let server = Server::start(config(any)).await.unwrap();
    let (rpc, near) = (server.rpc_addr(), client(&server).await);
    for port in 1..=INSTANCES {
        let new = crate::support::instance("product", port).id(format!("p{port}")).unwrap();
        near.register_once(&new.into_registration().unwrap()).await.unwrap();
    }
    near.close().await;
    let counter = Counter::to(rpc).await;
    let clients = join_all((0..WATCHERS).map(|_| connect(counter.addr))).await;
    let clients: Vec<_> = clients.into_iter().map(Result::unwrap).collect();
    let mut watches: Vec<_> = clients.iter().map(|client| client.watch(product()).unwrap()).collect();
    for watch in &mut watches {
        assert!(matches!(next(watch).await, Event::Snapshot(all) if all.len() == usize::from(INSTANCES)));
    }
    let before = counter.bytes.load(Ordering::Relaxed);
    server.stop().await;
    let server = Server::start(config(rpc)).await.unwrap();
    // The first that they hear after it is this.
    let near = client(&server).await;
    let telling = async {
        join_all(clients.iter().map(|client| client.connected())).await;
        eventually("all watch again", async || server_watches(&near).await >= WATCHERS as u64).await;
        let quiet = counter.bytes.load(Ordering::Relaxed) - before;
        let new = crate::support::instance("product", 9_999).id("new").unwrap();
        near.register_once(&new.into_registration().unwrap()).await.unwrap();
        quiet
    };
    let told = join_all(watches.iter_mut().map(next));
    let (quiet, told) = soon(Box::pin(async { tokio::join!(telling, told) })).await;
    for event in told {
        assert!(matches!(&event, Event::Changed(instance) if instance.id.as_str() == "new"), "{event:?}");
    }
    println!("{WATCHERS} watchers of {INSTANCES} instances came back for {quiet} bytes");
    assert!(quiet < WATCHERS as u64 * 2_048, "{quiet} bytes: they got what they knew");
    server.stop().await;
}

async fn server_watches(near: &roundsman::Discovery) -> u64 {
    near.status().await.map_or(0, |status| status.doors.watches)
}
