//! Many: instances in one service, and clients that return at once.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use futures::{StreamExt, future::join_all, stream};
use roundsman::{Discovery, Policy, Trouble};

use crate::support::{HANG, Network, State, client, eventually, instance, server, soon};

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
async fn a_restarted_server_gets_all_its_clients_back() {
    const CLIENTS: usize = 200;
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let connecting = (0..CLIENTS).map(|_| Discovery::builder().servers(network.addr).timeout(HANG).connect());
    let clients: Vec<_> = join_all(connecting).await.into_iter().map(Result::unwrap).collect();
    let resolving = clients.iter().map(|client| client.resolver("product").even_if_unknown().into_future());
    let resolvers: Vec<_> = join_all(resolving).await.into_iter().map(Result::unwrap).collect();

    network.become_(State::Cut);
    join_all(clients.iter().map(Discovery::disconnected)).await;
    // How often they try, and how far apart they return, is tested on the pauses themselves.
    eventually("they try", async || network.connections.load(Ordering::Relaxed) > 5 * CLIENTS).await;
    network.become_(State::Whole);
    soon(join_all(clients.iter().map(Discovery::connected))).await.into_iter().for_each(Result::unwrap);
    for resolver in &resolvers {
        eventually("the list is fresh again", async || resolver.snapshot().stale().is_none()).await;
    }
    server.stop().await;
}
