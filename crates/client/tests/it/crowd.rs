//! Many: instances in one service, and clients that return at once.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use roundsman::{Discovery, Policy, Trouble};
use tokio::time::{Instant, sleep};

use crate::support::{Network, State, client, eventually, instance, server, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_instances_are_no_special_case() {
    const MANY: usize = 10_000;
    let server = server().await;
    let discovery = client(&server).await;
    let registered = stream::iter(0..MANY).for_each_concurrent(256, |n| {
        let registration = instance("product", 1_000 + u16::try_from(n).unwrap()).id(format!("p{n}")).unwrap();
        let registration = registration.into_registration().unwrap();
        let discovery = &discovery;
        async move {
            discovery.register_once(&registration).await.unwrap();
        }
    });
    registered.await;
    let products = soon(discovery.resolver("product").into_future()).await.unwrap();
    assert_eq!(products.instances().len(), MANY);
    let picked: BTreeSet<_> = (0..MANY).map(|_| products.pick().unwrap().id.clone()).collect();
    assert_eq!(picked.len(), MANY, "in turn");
    let picky = discovery.resolver("product").policy(Policy::PeakEwma).await.unwrap();
    let sick = picky.pick_for("some key").unwrap().id.clone();
    while picky.ejected().is_empty() {
        let pick = picky.pick_for("some key").unwrap();
        assert_eq!(pick.id, sick);
        pick.failed_by(Trouble::Status(500));
    }
    assert_ne!(picky.pick_for("some key").unwrap().id, sick);
    discovery.deregister(&sick).await.unwrap();
    eventually("one is gone", async || products.instances().len() == MANY - 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_not_met_by_all_clients_at_once() {
    const CLIENTS: usize = 200;
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let connecting = (0..CLIENTS).map(|_| Discovery::connect(network.addr));
    let clients: Vec<_> = join_all(connecting).await.into_iter().map(Result::unwrap).collect();
    let resolving = clients.iter().map(|client| client.resolver("product").even_if_unknown().into_future());
    let resolvers: Vec<_> = join_all(resolving).await.into_iter().map(Result::unwrap).collect();

    network.become_(State::Cut);
    join_all(clients.iter().map(Discovery::disconnected)).await;
    sleep(Duration::from_secs(1)).await;
    let tries = network.connections.swap(0, Ordering::Relaxed) - CLIENTS;
    // Pauses of at most 50 ms, 100 ms, 200 ms, … and never less than a tenth of each.
    assert!(tries <= 10 * CLIENTS, "{tries} tries in a second");

    network.become_(State::Whole);
    let back = Instant::now();
    let returning = clients.iter().map(|client| async {
        client.connected().await.unwrap();
        back.elapsed()
    });
    let mut returned = soon(join_all(returning)).await;
    returned.sort();
    let at = |percent: usize| returned[(CLIENTS - 1) * percent / 100];
    println!("back after {:?} (a tenth), {:?} (half), {:?} (nine tenths)", at(10), at(50), at(90));
    let window = Duration::from_millis(50);
    let crowd = returned.iter().map(|first| returned.iter().filter(|t| *t >= first && **t < *first + window).count());
    let crowd = crowd.max().unwrap();
    assert!(crowd < CLIENTS / 2, "{crowd} of {CLIENTS} within {window:?}");
    assert!(at(90) - at(10) > window, "spread over {:?}", at(90) - at(10));
    for resolver in &resolvers {
        eventually("the list is fresh again", async || resolver.snapshot().stale().is_none()).await;
    }
    server.stop().await;
}
