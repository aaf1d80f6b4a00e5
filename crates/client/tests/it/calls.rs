//! Calls while all is well.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use roundsman::{Check, Codec, Discovery, Error, InstanceStatus, NewInstance, Outcome, Query, Scope, Trouble};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{HANG, client, instance, server, soon};

#[tokio::test]
async fn registers_and_finds() {
    let server = server().await;
    let discovery = client(&server).await;
    let new = instance("product", 7070).id("product-1").unwrap().tag("fruit").meta("shelf", "3").zone("a").version("2");
    let registration = discovery.register(new).await.unwrap();
    assert_eq!((registration.id().as_str(), registration.name().as_str()), ("product-1", "product"));

    let found = discovery.get("Product").await.unwrap();
    assert_eq!(found.id, *registration.id());
    assert_eq!(found.address.to_string(), "127.0.0.1:7070");
    assert_eq!((found.status, found.meta.get("shelf")), (InstanceStatus::Passing, Some("3")));
    let query = Query { tags: vec!["fruit".into()], zone: Some("a".into()), ..Query::service(found.name.clone()) };
    assert_eq!(discovery.list(query.clone()).await.unwrap(), [Arc::clone(&found)]);
    let elsewhere = Query { zone: Some("b".into()), ..query };
    assert_eq!(discovery.list(elsewhere).await.unwrap(), []);
    let services = discovery.services().await.unwrap();
    assert_eq!((services.len(), services[0].passing), (1, 1));
    let status = discovery.status().await.unwrap();
    assert!(status.ready && status.namespaces[0].services == services);

    registration.close().await.unwrap();
    assert!(discovery.get("product").await.unwrap_err().is_not_found());
    discovery.close().await;
    server.stop().await;
}

#[tokio::test]
async fn errors_tell_what_to_do() {
    let server = server().await;
    let discovery = client(&server).await;
    let missing = discovery.get("product").await.unwrap_err();
    assert!(missing.is_not_found() && !missing.is_retryable());
    assert_eq!(missing.to_string(), "no service named `product` is registered");
    assert!(matches!(discovery.get("a b").await, Err(Error::Invalid(invalid)) if invalid.field == "name"));
    let id = "product-1".try_into().unwrap();
    assert!(discovery.deregister(&id).await.unwrap_err().is_not_found());
    assert!(discovery.drain(&id, true).await.unwrap_err().is_not_found());
    assert!(discovery.renew(&id).await.unwrap_err().is_not_found());

    // Refused by the server: link-local addresses are not to be visited.
    let metadata_service = NewInstance::new("product", "169.254.169.254:80").unwrap();
    let refused = discovery.register(metadata_service).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(invalid) if invalid.field == "address"), "{refused}");
    // Refused without harm to the connection.
    let query = Query { tags: vec!["x".repeat(2 * 1_024 * 1_024).into()], ..Query::default() };
    let refused = discovery.list(query).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(invalid) if invalid.field == "tags"), "{refused}");
    assert_eq!(discovery.services().await.unwrap(), []);
    server.stop().await;
}

#[tokio::test]
async fn drained_instances_stay_registered() {
    let server = server().await;
    let discovery = client(&server).await;
    let registration = discovery.register(instance("product", 7070)).await.unwrap();
    registration.drain(true).await.unwrap();
    assert!(discovery.get("product").await.unwrap_err().is_not_found());
    let all = discovery.list(Query::service("product".try_into().unwrap()).scope(Scope::Registered)).await.unwrap();
    assert_eq!(all[0].status, InstanceStatus::Draining);
    registration.drain(false).await.unwrap();
    discovery.get("product").await.unwrap();
    discovery.report(registration.id(), Trouble::Timeout).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn registering_again_changes_nothing_or_what_is_said() {
    let server = server().await;
    let discovery = client(&server).await;
    let new = |weight| instance("product", 7070).id("product-1").unwrap().weight(weight).into_registration().unwrap();
    let mut outcomes = Vec::new();
    for weight in [1, 1, 2] {
        outcomes.push(discovery.register_once(&new(weight)).await.unwrap().outcome);
    }
    assert_eq!(outcomes, [Outcome::Created, Outcome::Unchanged, Outcome::Updated]);
    server.stop().await;
}

#[tokio::test]
async fn every_codec_says_the_same() {
    let server = server().await;
    let json =
        Discovery::builder().servers(server.rpc_addr()).codec(Codec::Json).timeout(HANG).connect().await.unwrap();
    let postcard = client(&server).await;
    let new = instance("product", 7070).check(Check::ttl(Duration::from_secs(30))).meta("ä", "\u{1f34e}");
    let registration = json.register(new).await.unwrap();
    json.renew(registration.id()).await.unwrap();
    let all = Query::default().scope(Scope::All);
    assert_eq!(json.list(all.clone()).await.unwrap(), postcard.list(all).await.unwrap());
    assert_eq!(json.services().await.unwrap(), postcard.services().await.unwrap());
    assert!(json.get("nobody").await.unwrap_err().is_not_found());
    json.status().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn namespaces_never_meet() {
    let server = server().await;
    let shop = Discovery::builder().servers(server.rpc_addr()).namespace("shop").timeout(HANG).connect().await.unwrap();
    let registration = shop.register(instance("product", 7070)).await.unwrap();
    let default = client(&server).await;
    assert!(default.get("product").await.unwrap_err().is_not_found());
    assert!(default.deregister(registration.id()).await.unwrap_err().is_not_found());
    assert_eq!(shop.get("product").await.unwrap().namespace.as_str(), "shop");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_one_connection() {
    const CALLS: u32 = 4_000;
    let server = server().await;
    let discovery = client(&server).await;
    let first = discovery.register(instance("product", 7070)).await.unwrap();
    let second = discovery.register(instance("product", 7071)).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let discovery = discovery.clone();
        calls.spawn(async move { discovery.get("product").await.unwrap().id.clone() });
    }
    let mut counts = BTreeMap::new();
    while let Some(id) = soon(calls.join_next()).await {
        *counts.entry(id.unwrap()).or_insert(0) += 1;
    }
    let count = |id| counts.get(id).copied().unwrap_or(0);
    let (first, second) = (count(first.id()), count(second.id()));
    assert_eq!(first + second, CALLS);
    assert!(first.abs_diff(second) <= CALLS / 10, "{first} and {second}");
    server.stop().await;
}

#[test]
fn after_close_nothing_of_the_library_runs() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let server = servers.block_on(server());
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        let discovery = client(&server).await;
        let mut changes = discovery.watch(Query::default()).unwrap();
        let registration = discovery.register(instance("product", 7070)).await.unwrap();
        let other = discovery.clone();
        soon(discovery.close()).await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
        assert_eq!(other.get("product").await.unwrap_err(), Error::Closed);
        assert!(matches!(registration.close().await, Err(Error::Closed)));
        while soon(changes.next()).await.is_some() {}
        assert_eq!(changes.failure(), Some(&Error::Closed));

        let discovery = client(&server).await;
        assert!(discovery.get("product").await.unwrap_err().is_not_found(), "closing the client deregisters");
        drop(discovery.register(instance("product", 7070)).await.unwrap());
        discovery.get("product").await.expect("dropping a registration does not deregister");
        // Dropping everything ends the tasks as well, if a moment later.
        drop(discovery);
        soon(async {
            while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    });
    servers.block_on(server.stop());
}
