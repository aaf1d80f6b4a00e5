//! Watches, through changes and restarts.

use std::sync::Arc;

use futures::StreamExt;
use roundsman::{Event, Query, Watch};

use crate::support::{Network, State, client, connect, instance, server, server_on, soon};

async fn next(watch: &mut Watch) -> Event {
    soon(watch.next()).await.expect("the stream goes on")
}

fn product() -> Query {
    Query::service("product".try_into().unwrap())
}

#[tokio::test]
async fn tells_everything_first_and_then_what_changes() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut changes = discovery.watch(product()).unwrap();
    assert_eq!(next(&mut changes).await, Event::Snapshot(Vec::new()));

    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let Event::Changed(added) = next(&mut changes).await else { panic!("a new instance is a change") };
    assert_eq!(added.id, *registration.id());
    // Another service is none of its business: the next event is about this one.
    let other = discovery.register(instance("order", 6060)).await.unwrap();
    registration.drain(true).await.unwrap();
    let Event::Removed(removed) = next(&mut changes).await else { panic!("drained is no longer available") };
    assert_eq!(removed.id, *registration.id());
    registration.drain(false).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Changed(_)));
    registration.close().await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Removed(removed) if removed.reason.contains("deregistered")));
    other.close().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn survives_a_restart_of_the_server() {
    let first = server().await;
    let addr = first.rpc_addr();
    let discovery = client(&first).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let mut changes = discovery.watch(product()).unwrap();
    assert!(matches!(next(&mut changes).await, Event::Snapshot(all) if all.len() == 1));
    first.stop().await;
    let second = server_on(addr).await;
    // It has lost its memory, and is told anew: whichever comes first, and in whichever way the server tells it.
    let again = loop {
        match next(&mut changes).await {
            Event::Removed(_) => {}
            Event::Snapshot(all) if all.is_empty() => {}
            Event::Snapshot(all) => break Arc::clone(&all[0]),
            Event::Changed(instance) => break instance,
        }
    };
    assert_eq!(again.id, *registration.id());
    // While somebody else is left; the removal of a namespace's last instance is told as an empty snapshot.
    let _other = discovery.register(instance("order", 6060)).await.unwrap();
    registration.close().await.unwrap();
    let gone = next(&mut changes).await;
    assert!(matches!(gone, Event::Removed(_)), "{gone:?}");
    second.stop().await;
}

#[tokio::test]
async fn picks_up_where_it_was_after_a_lost_connection() {
    let server = server().await;
    let near = client(&server).await;
    let network = Network::to(server.rpc_addr()).await;
    let far = connect(network.addr).await.unwrap();
    let mut changes = far.watch(product()).unwrap();
    assert_eq!(next(&mut changes).await, Event::Snapshot(Vec::new()));
    network.become_(State::Cut);
    soon(far.disconnected()).await;
    let missed = near.register(instance("product", 7070)).await.unwrap();
    network.become_(State::Whole);
    // The same epoch: the change itself, no snapshot.
    assert!(matches!(next(&mut changes).await, Event::Changed(instance) if instance.id == *missed.id()));
    server.stop().await;
}

#[tokio::test]
async fn many_watchers_are_told() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut watches: Vec<_> = (0..200).map(|_| discovery.watch(product()).unwrap()).collect();
    for watch in &mut watches {
        assert_eq!(next(watch).await, Event::Snapshot(Vec::new()));
    }
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    let told = watches.iter_mut().map(|watch| async move { matches!(next(watch).await, Event::Changed(_)) });
    assert!(futures::future::join_all(told).await.into_iter().all(|told| told));
    // As a stream, for those who combine streams. Nobody is left in the namespace, which a server tells in either way.
    let gone = registration.id().clone();
    registration.close().await.unwrap();
    let ends = soon(watches.pop().unwrap().take(1).collect::<Vec<_>>()).await;
    let told = match &ends[..] {
        [Event::Snapshot(left)] => left.is_empty(),
        [Event::Removed(removed)] => removed.id == gone,
        _ => false,
    };
    assert!(told, "{ends:?}");
    server.stop().await;
}
