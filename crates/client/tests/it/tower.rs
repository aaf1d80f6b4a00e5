//! Instances come and go for tower.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use roundsman::{Address, Instance, Resolver};
use tower::discover::{Change, Discover};

use crate::support::{client, eventually, instance, server, soon};

/// The changes that are there, until the set is as it should be.
async fn follow(
    endpoints: &mut (
             impl Discover<Key = roundsman::InstanceId, Service = Address>
             + futures::Stream<Item = Result<Change<roundsman::InstanceId, Address>, std::convert::Infallible>>
             + Unpin
         ),
    set: &mut BTreeMap<String, u16>,
    until: &[(&str, u16)],
) -> Vec<String> {
    let mut told = Vec::new();
    while set.iter().map(|(id, port)| (id.as_str(), *port)).collect::<Vec<_>>() != until {
        match soon(endpoints.next()).await.unwrap().unwrap() {
            Change::Insert(id, address) => {
                told.push(format!("+{id}"));
                assert_eq!(set.insert(id.to_string(), address.port()), None, "{id} is inserted twice");
            }
            Change::Remove(id) => {
                told.push(format!("-{id}"));
                assert!(set.remove(id.as_str()).is_some(), "{id} was not there");
            }
        }
    }
    told
}

#[tokio::test]
async fn each_change_is_told_once() {
    let server = server().await;
    let discovery = client(&server).await;
    let named = |id: &str, port| instance("product", port).id(id).unwrap();
    let a = discovery.register(named("a", 7001)).await.unwrap();
    let _b = discovery.register(named("b", 7002)).await.unwrap();
    let resolver: Resolver = discovery.resolver("product").await.unwrap();
    let mut endpoints = resolver.endpoints(|instance: &Arc<Instance>| instance.address.clone());
    let mut set = BTreeMap::new();
    assert_eq!(follow(&mut endpoints, &mut set, &[("a", 7001), ("b", 7002)]).await, ["+a", "+b"]);
    // It goes on from what was told, whatever happened meanwhile.
    let c = discovery.register(named("c", 7003)).await.unwrap();
    a.drain(true).await.unwrap();
    eventually("both are seen", async || {
        resolver.instances().last().is_some_and(|last| last.id.as_str() == "c") && resolver.instances().len() == 2
    })
    .await;
    assert_eq!(follow(&mut endpoints, &mut set, &[("b", 7002), ("c", 7003)]).await, ["-a", "+c"]);
    // Other data is no change; another address is.
    c.close().await.unwrap();
    let _c = discovery.register(named("c", 7004).tag("moved")).await.unwrap();
    let told = follow(&mut endpoints, &mut set, &[("b", 7002), ("c", 7004)]).await;
    assert_eq!(told, ["-c", "+c"]);
    discovery.close().await;
    assert!(soon(endpoints.next()).await.is_none(), "it ends with the client");
    server.stop().await;
}
