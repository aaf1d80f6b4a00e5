//! Tenants in one process: same names, same ids, same addresses, and nothing in common.

use std::collections::BTreeSet;

use roundsman::{Discovery, Error, Event, Query, Scope, Trouble};
use roundsman_discovery::Server;

use crate::support::{HANG, eventually, instance, server, soon};

async fn tenant(server: &Server, namespace: &str) -> Discovery {
    Discovery::builder().servers(server.rpc_addr()).namespace(namespace).timeout(HANG).connect().await.unwrap()
}

/// The ports of what a tenant is told, by whichever way.
async fn ports(discovery: &Discovery) -> [BTreeSet<u16>; 3] {
    let of = |instances: &[std::sync::Arc<roundsman::Instance>]| instances.iter().map(|i| i.address.port()).collect();
    let everything = Query::default().scope(Scope::All);
    let listed = of(&discovery.list(everything.clone()).await.unwrap());
    let Some(Event::Snapshot(watched)) = soon(discovery.watch(everything).unwrap().next()).await else {
        panic!("a watch begins with a snapshot")
    };
    let resolved = of(&discovery.resolver_for(Query::default()).await.unwrap().instances());
    [listed, of(&watched), resolved]
}

#[tokio::test]
async fn nothing_of_one_tenant_is_seen_by_another() {
    let server = server().await;
    let (red, blue) = (tenant(&server, "red").await, tenant(&server, "blue").await);
    // The same id in both, the same address in both, and one that only red has.
    let same = |port| instance("product", port).id("product-1").unwrap();
    let _red = red.register(same(7070)).await.unwrap();
    let _blue = blue.register(same(7071)).await.unwrap();
    let _shared =
        [red.register(instance("cart", 9090)).await.unwrap(), blue.register(instance("cart", 9090)).await.unwrap()];
    let _secret = red.register(instance("secret", 6666)).await.unwrap();
    assert_eq!(ports(&red).await, [(); 3].map(|()| [6666, 7070, 9090].into()));
    assert_eq!(ports(&blue).await, [(); 3].map(|()| [7071, 9090].into()));
    for (discovery, port) in [(&red, 7070), (&blue, 7071)] {
        for _ in 0..20 {
            assert_eq!(discovery.get("product").await.unwrap().address.port(), port);
        }
    }
    let names = async |discovery: &Discovery| {
        discovery.services().await.unwrap().into_iter().map(|service| service.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&red).await, ["cart", "product", "secret"]);
    assert_eq!(names(&blue).await, ["cart", "product"]);
    let status = blue.status().await.unwrap();
    assert!(status.namespaces.iter().all(|other| other.namespace.as_str() == "blue"));
    assert!(status.recent.iter().all(|flip| flip.namespace.as_str() == "blue"));
    assert!(blue.get("secret").await.unwrap_err().is_not_found());
    assert!(matches!(blue.resolver("secret").await, Err(Error::Discovery(_))));
    server.stop().await;
}

#[tokio::test]
async fn nobody_lays_hands_on_what_is_anothers() {
    let server = server().await;
    let (red, blue) = (tenant(&server, "red").await, tenant(&server, "blue").await);
    let kept = red.register(instance("product", 7070)).await.unwrap();
    for refused in [
        blue.deregister(kept.id()).await,
        blue.renew(kept.id()).await,
        blue.drain(kept.id(), true).await,
        blue.report(kept.id(), Trouble::Refused).await,
    ] {
        assert!(refused.unwrap_err().is_not_found());
    }
    assert_eq!(red.get("product").await.unwrap().id, *kept.id());
    server.stop().await;
}

#[tokio::test]
async fn what_happens_to_one_does_not_touch_the_other() {
    let server = server().await;
    let (red, blue) = (tenant(&server, "red").await, tenant(&server, "blue").await);
    let mut kept = Vec::new();
    for discovery in [&red, &blue] {
        for n in 1..=2_u16 {
            let instance = instance("product", 7070 + n).id(format!("product-{n}")).unwrap();
            kept.push(discovery.register(instance).await.unwrap());
        }
    }
    let (reds, blues) = (red.resolver("product").await.unwrap(), blue.resolver("product").await.unwrap());
    let mut changes = blues.changes();
    soon(changes.next()).await.unwrap();

    while reds.ejected().is_empty() {
        reds.pick().unwrap().failed();
    }
    assert!(blues.ejected().is_empty(), "the circuits are red's own");

    // Everything of red leaves; what blue hears of next is its own.
    red.close().await;
    let red = tenant(&server, "red").await;
    eventually("red has left", async || red.services().await.unwrap().iter().all(|s| s.passing == 0)).await;
    assert_eq!((blues.instances().len(), blues.snapshot().stale()), (2, None));
    kept.push(blue.register(instance("product", 7073)).await.unwrap());
    let news = soon(changes.next()).await.unwrap();
    assert_eq!((news.instances().len(), news.stale()), (3, None));
    server.stop().await;
}
