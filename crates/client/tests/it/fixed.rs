//! A client without a server behaves as one with a server does.

use std::time::Duration;

use futures::StreamExt;
use roundsman::{
    Discovery, Error, Event, Health, HealthStatus, InstanceStatus, NewInstance, Query, RegistrationState, Scope,
};

use tokio::task::JoinSet;

use crate::support::{eventually, instance, soon};

fn fruit() -> Discovery {
    let new = |id: &str, port: u16| NewInstance::new("product", format!("10.0.0.1:{port}")).unwrap().id(id).unwrap();
    let mut all = vec![new("product-1", 1).version("1"), new("product-2", 2).version("2").tag("fruit").weight(3)];
    all.push(NewInstance::new("order", "10.0.0.2:1").unwrap());
    Discovery::fixed(all).unwrap()
}

#[tokio::test]
async fn it_is_asked_as_any_other() {
    let discovery = fruit();
    soon(discovery.connected()).await.unwrap();
    let mut turns = Vec::new();
    for _ in 0..8 {
        turns.push(discovery.get("product").await.unwrap().id.to_string());
    }
    assert_eq!(turns.iter().filter(|id| *id == "product-2").count(), 6, "by weight");
    assert!(discovery.get("nobody").await.unwrap_err().is_not_found());
    let fruit = Query::service("product".parse().unwrap()).tag("fruit");
    assert_eq!(discovery.list(fruit).await.unwrap().len(), 1);
    assert!(discovery.list(Query::service("nobody".parse().unwrap())).await.unwrap_err().is_not_found());
    let services = discovery.services().await.unwrap();
    assert_eq!(
        services.iter().map(|one| (one.name.as_str(), one.passing)).collect::<Vec<_>>(),
        [("order", 1), ("product", 2)]
    );
    assert!(matches!(discovery.status().await, Err(Error::Invalid(_))), "of a server that there is not");
    soon(discovery.close()).await;
    assert!(matches!(discovery.get("product").await, Err(Error::Closed)));
}

#[tokio::test]
async fn resolvers_know_what_was_given() {
    let discovery = fruit();
    let products = soon(discovery.resolver("product").into_future()).await.unwrap();
    assert_eq!((products.instances().len(), products.snapshot().stale()), (2, None));
    let new = discovery.resolver("product").select(Query::default().version("2")).await.unwrap();
    assert_eq!(new.pick().unwrap().id.as_str(), "product-2");
    let one = discovery.resolver("product").subset_as("me", 1).await.unwrap();
    assert_eq!(one.instances().len(), 1);
    assert!(discovery.resolver("nobody").await.unwrap_err().is_not_found());
    let empty = discovery.resolver("nobody").even_if_unknown().await.unwrap();
    assert!(empty.pick().is_none());
    // They follow what a test changes.
    discovery.drain(&"product-2".parse().unwrap(), true).await.unwrap();
    eventually("it is drained", async || new.pick().is_none() && products.instances().len() == 1).await;
    eventually("the subset has the other", async || one.pick().is_some_and(|one| one.id.as_str() == "product-1")).await;
}

#[tokio::test]
async fn what_the_program_registers_can_be_looked_at() {
    let discovery = Discovery::builder().notice(Duration::ZERO).fixed([("product", "10.0.0.1:1")]).unwrap();
    let mut changes = discovery.watch(Query::default()).unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(all)) if all.len() == 1));
    let me = discovery.register(instance("order", 6060).id("order-1").unwrap().version("1.2")).await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Changed(me) if me.version.as_deref() == Some("1.2")), "{told:?}");
    me.update(|instance| instance.weight(7)).await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Changed(me) if me.weight == 7), "{told:?}");
    me.draining().await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Removed(me) if me.status == Some(InstanceStatus::Draining)), "{told:?}");
    soon(me.graceful(async {})).await;
    let all = discovery.list(Query::default().scope(Scope::All)).await.unwrap();
    assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["product"]);
    let background = discovery.register_in_background(instance("order", 6061)).unwrap();
    soon(background.registered()).await;
    assert!(matches!(*background.state().borrow(), RegistrationState::Registered));
}

#[tokio::test]
async fn mistakes_in_it_are_told() {
    let field = |result: Result<Discovery, Error>| match result.unwrap_err() {
        Error::Invalid(invalid) => invalid.field,
        other => panic!("{other}"),
    };
    assert_eq!(field(Discovery::fixed([("a b", "10.0.0.1:1")])), "name");
    assert_eq!(field(Discovery::fixed([("product", "nowhere")])), "address");
    assert_eq!(field(Discovery::fixed([instance("product", 1).weight(0)])), "weight");
    assert_eq!(field(Discovery::builder().namespace("a b").fixed([("product", "10.0.0.1:1")])), "namespace");
    let shop = Discovery::builder().namespace("shop").fixed([("product", "10.0.0.1:1")]).unwrap();
    assert_eq!(shop.get("product").await.unwrap().namespace.as_str(), "shop");
}

#[test]
fn it_leaves_no_task_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let discovery = fruit();
        let (products, changes) = (discovery.resolver("product").await.unwrap(), discovery.watch(Query::default()));
        assert!(alive() > 0);
        soon(discovery.close()).await;
        assert_eq!((alive(), products.instances().len()), (0, 2), "lists stay as they were");
        assert!(soon(changes.unwrap().next()).await.is_none());
        let discovery = fruit();
        let products = discovery.resolver("product").await.unwrap();
        drop((discovery, products));
        eventually("all tasks ended", async || alive() == 0).await;
    });
}

#[cfg(feature = "http")]
#[tokio::test]
async fn calls_by_name_go_there() {
    use crate::backend::{Backend, Manner, patient};
    let (well, failing) = (Backend::start(Manner::Well).await, Backend::start(Manner::Status(500)).await);
    let discovery = Discovery::fixed([("product", well.addr), ("product", failing.addr)]).unwrap();
    for _ in 0..10 {
        let answer = patient(&discovery, "product").get("/product/aaa").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.instance().address.to_string()), (200, well.addr.to_string()));
    }
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn endpoints_are_those_that_were_given() {
    let products = fruit().resolver("product").await.unwrap();
    let mut endpoints = products.endpoints(std::sync::Arc::clone);
    for _ in 0..2 {
        assert!(matches!(soon(endpoints.next()).await, Some(Ok(tower::discover::Change::Insert(..)))));
    }
}

#[tokio::test]
async fn more_removals_than_are_remembered_are_told_as_a_whole() {
    let discovery = fruit();
    let mut changes = discovery.watch(Query::default()).unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(all)) if all.len() == 3));
    for n in 0..1_100_u16 {
        let id = format!("other-{n}").parse().unwrap();
        let other = instance("other", 1 + n).id(format!("other-{n}")).unwrap().into_registration().unwrap();
        discovery.register_once(&other).await.unwrap();
        discovery.deregister(&id).await.unwrap();
    }
    discovery.deregister(&"product-1".parse().unwrap()).await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Snapshot(all) if all.len() == 2), "{told:?}");
}

#[tokio::test]
async fn no_patience_is_too_long() {
    let discovery = fruit();
    let products = soon(discovery.resolver("product").timeout(Duration::MAX).into_future()).await.unwrap();
    assert_eq!(products.instances().len(), 2);
    let health = Health::new().timeout(Duration::MAX).check("disk", async || Ok::<(), String>(()));
    assert_eq!(soon(health.report()).await.http_status(), 200);
}

#[tokio::test]
async fn who_has_left_is_followed_no_longer() {
    let discovery = fruit();
    let health = Health::new().check("disk", async || Err("full"));
    let first = discovery.register(instance("order", 6060).id("order-1").unwrap()).await.unwrap();
    health.follow(&first);
    first.close().await.unwrap();
    let second = discovery.register(instance("order", 6061).id("order-2").unwrap()).await.unwrap();
    health.follow(&second);
    second.draining().await.unwrap();
    let report = health.report().await;
    assert_eq!((report.status, report.http_status()), (HealthStatus::Draining, 200));
    assert_eq!(report.instance_header().as_deref(), Some("order-2"));
    // Whoever merely let go of it still answers for it; whoever closes the client does not.
    drop(second);
    assert_eq!(health.report().await.instance_header().as_deref(), Some("order-2"));
    let third = discovery.register(instance("order", 6062).id("order-3").unwrap()).await.unwrap();
    health.follow(&third);
    soon(discovery.close()).await;
    assert_eq!(health.report().await.instance_header().as_deref(), Some("order-2"));
}

#[tokio::test]
async fn as_many_lists_as_are_followed_at_a_time_leave_room_for_lookups() {
    let discovery = fruit();
    let mut watches = JoinSet::new();
    for _ in 0..900 {
        let mut changes = discovery.watch(Query::default()).unwrap();
        assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(_))));
        watches.spawn(async move { changes.next().await });
    }
    let mut subsets = Vec::new();
    for n in 0..99 {
        subsets.push(soon(discovery.resolver("product").subset_as(format!("me-{n}"), 1).into_future()).await.unwrap());
    }
    let _all = discovery.resolver("product").await.unwrap();
    for _ in 0..100 {
        discovery.get("product").await.unwrap();
    }
    discovery.register(instance("order", 6060)).await.unwrap().close().await.unwrap();
    watches.shutdown().await;
}
