//! What a client library in a service goes through when server processes are frozen and killed.

use std::time::Duration;

use roundsman::{Check, Discovery, NewInstance, Resolver};
use tokio::time::{sleep, timeout};

use crate::support::Served;

/// For whatever must happen but may take its time on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn instance(port: u16) -> NewInstance {
    NewInstance::new("product", format!("127.0.0.1:{port}")).unwrap().check(Check::none())
}

/// A client whose calls wait for an answer as long as it takes.
async fn client(servers: &[&String]) -> Discovery {
    Discovery::builder().servers(servers).timeout(SOON).connect().await.unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = timeout(SOON, async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

fn ports(resolver: &Resolver) -> Vec<u16> {
    let mut ports: Vec<_> = resolver.instances().iter().map(|instance| instance.address.port()).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn a_frozen_server_leaves_the_list_as_it_was_until_it_thaws() {
    let served = Served::start();
    let discovery = client(&[&served.rpc]).await;
    let _kept = discovery.register(instance(7070)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    served.signal("STOP");
    until("the silence is noticed", || products.snapshot().stale().is_some()).await;
    assert_eq!(products.pick().unwrap().address.port(), 7070);
    served.signal("CONT");
    until("it is followed again", || products.snapshot().stale().is_none()).await;
    let _another = discovery.register(instance(7071)).await.unwrap();
    until("the newcomer is seen", || ports(&products) == [7070, 7071]).await;
    discovery.close().await;
}

#[tokio::test]
async fn another_server_takes_over_from_one_that_is_killed() {
    let (first, second) = (Served::start(), Served::start());
    let discovery = client(&[&first.rpc, &second.rpc]).await;
    let elsewhere = client(&[&second.rpc]).await;
    let _kept = discovery.register(instance(7070)).await.unwrap();
    let _other = elsewhere.register(instance(7071)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    assert_eq!(ports(&products), [7070]);
    drop(first);
    // The second server has a memory of its own: we register there as well, and see what it knows.
    until("we are registered at the other server", || ports(&products) == [7070, 7071]).await;
    until("its word counts", || products.snapshot().stale().is_none()).await;
    discovery.close().await;
    elsewhere.close().await;
}

#[tokio::test]
async fn a_killed_server_that_comes_back_empty_is_filled_again() {
    let served = Served::start();
    let address = served.rpc.clone();
    let discovery = client(&[&address]).await;
    let kept = discovery.register(instance(7070)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    drop(served);
    until("it is gone", || products.snapshot().stale().is_some()).await;
    assert_eq!(ports(&products), [7070], "the last known list");
    let served = Served::start_on(&address);
    until("the same instance is back by the new server's word", || {
        products.snapshot().stale().is_none() && products.pick().is_some_and(|pick| pick.id == *kept.id())
    })
    .await;
    assert!(served.run(&["get", "product"]).ok().contains("127.0.0.1:7070"));
    discovery.close().await;
}
