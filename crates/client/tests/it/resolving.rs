//! Resolvers: up to date, and of use without any server.

use std::{path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use roundsman::{Builder, Discovery, Error, Query, Resolver, Scope};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    HANG, Network, State, StoppedClock, client, connect, eventually, instance, nowhere, server, server_on, soon,
};

fn ids(resolver: &Resolver) -> Vec<String> {
    resolver.instances().iter().map(|instance| instance.id.to_string()).collect()
}

fn named(service: &str, id: &str, port: u16) -> roundsman::NewInstance {
    instance(service, port).id(id).unwrap()
}

#[tokio::test]
async fn is_told_of_every_change() {
    let server = server().await;
    let discovery = client(&server).await;
    let first = discovery.register(named("product", "product-1", 7070)).await.unwrap();
    let products = soon(discovery.resolver("Product").into_future()).await.unwrap();
    assert_eq!(products.pick().unwrap().id, *first.id());
    assert_eq!(products.snapshot().stale(), None);

    let near = client(&server).await;
    let second = near.register(named("product", "product-2", 7071)).await.unwrap();
    eventually("the second is seen", async || ids(&products) == ["product-1", "product-2"]).await;
    let other = near.register(named("order", "order-1", 6060)).await.unwrap();
    second.drain(true).await.unwrap();
    eventually("drained is not handed out", async || ids(&products) == ["product-1"]).await;
    second.drain(false).await.unwrap();
    eventually("it is back", async || ids(&products).len() == 2).await;
    let turns: Vec<_> = (0..4).map(|_| products.pick().unwrap().id.clone()).collect();
    assert!(turns[0] != turns[1] && turns[..2] == turns[2..], "{turns:?}");
    second.close().await.unwrap();
    first.close().await.unwrap();
    eventually("nobody is left", async || products.pick().is_none()).await;
    assert_eq!(products.snapshot().stale(), None, "believed at once: the server is the same");
    other.close().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_an_error_at_once() {
    let server = server().await;
    let discovery = client(&server).await;
    let error = soon(discovery.resolver("nobody").into_future()).await.unwrap_err();
    assert_eq!((error.is_not_found(), error.to_string().as_str()), (true, "no service named `nobody` is registered"));
    assert!(matches!(discovery.resolver("a b").await, Err(Error::Invalid(invalid)) if invalid.field == "name"));
    let all = Query::default().scope(Scope::All);
    assert!(matches!(discovery.resolver_for(all).await, Err(Error::Invalid(invalid)) if invalid.field == "scope"));

    // It can be had all the same, for one that will come.
    let products = soon(discovery.resolver("product").even_if_unknown().into_future()).await.unwrap();
    assert!(products.pick().is_none());
    let (first, registration) =
        tokio::join!(soon(products.wait_for_first()), discovery.register(instance("product", 7070)));
    assert_eq!(first.unwrap().id, *registration.as_ref().unwrap().id());
    // And nobody passing is not nobody.
    registration.unwrap().drain(true).await.unwrap();
    eventually("it is drained", async || products.pick().is_none()).await;
    assert!(discovery.resolver("product").await.unwrap().pick().is_none());
    server.stop().await;
}

#[tokio::test]
async fn resolvers_share_one_watch_however_many_they_are() {
    let server = server().await;
    let discovery = client(&server).await;
    let mut resolvers = Vec::new();
    for n in 0..20 {
        let service = format!("service-{n}");
        drop(discovery.register(named(&service, &service, 7000 + n)).await.unwrap());
        resolvers.push(discovery.resolver(service.as_str()).await.unwrap());
        // Others come and go meanwhile.
        drop(discovery.register(named("other", &format!("other-{n}"), 8000 + n)).await.unwrap());
    }
    let all = discovery.resolver_for(Query::default()).await.unwrap();
    assert_eq!(all.instances().len(), 40);
    let watches = async || discovery.status().await.unwrap().doors.watches;
    eventually("one watch", async || watches().await == 1).await;
    for resolver in &resolvers {
        assert_eq!(resolver.pick().unwrap().name, resolver.query().services[0]);
    }
    // Each is still told of its own.
    drop(all);
    for (n, resolver) in (0..20).zip(&resolvers) {
        let service = format!("service-{n}");
        drop(discovery.register(named(&service, &format!("{service}-b"), 9000 + n)).await.unwrap());
        eventually("its second instance", async || resolver.instances().len() == 2).await;
    }
    assert_eq!(watches().await, 1);
    server.stop().await;
}

#[tokio::test]
async fn what_happens_while_services_join_is_not_missed() {
    let server = server().await;
    let (discovery, near) = (client(&server).await, client(&server).await);
    // Registered for as long as the test goes on, then gone: joined at any moment, its end must be seen.
    let mut churn = JoinSet::new();
    for task in 0..4 {
        let near = near.clone();
        churn.spawn(async move {
            for n in 0..30_u16 {
                let service = format!("service-{}", n % 10);
                let new = named(&service, &format!("i-{task}-{n}"), 1_000 + task * 100 + n);
                near.register(new).await.unwrap().close().await.unwrap();
            }
        });
    }
    let mut resolvers = Vec::new();
    for n in 0..10 {
        resolvers.push(discovery.resolver(format!("service-{n}").as_str()).even_if_unknown().await.unwrap());
    }
    while let Some(done) = soon(churn.join_next()).await {
        done.unwrap();
    }
    let last = near.register(named("service-9", "last", 7070)).await.unwrap();
    eventually("the last is seen", async || resolvers[9].pick().is_some_and(|found| found.id == *last.id())).await;
    for (n, resolver) in resolvers.iter().enumerate() {
        assert_eq!(ids(resolver), if n == 9 { vec!["last"] } else { vec![] });
    }
    server.stop().await;
}

#[tokio::test]
async fn filters_are_followed_as_well() {
    let server = server().await;
    let discovery = client(&server).await;
    let new = || named("product", "new", 7070).version("2").zone("a").tag("fruit").meta("shelf", "3");
    let _new = discovery.register(new()).await.unwrap();
    let old = discovery.register(named("product", "old", 7071).version("1")).await.unwrap();
    let product = Query::service("product".try_into().unwrap());
    let queries = [
        Query { version: Some("2".into()), ..product.clone() },
        Query { zone: Some("a".into()), ..product.clone() },
        Query { tags: vec!["fruit".into()], ..product.clone() },
        Query { meta: [("shelf", "3")].into_iter().collect(), ..product.clone() },
    ];
    let mut resolvers = Vec::new();
    for query in queries {
        resolvers.push(soon(discovery.resolver_for(query).into_future()).await.unwrap());
    }
    assert!(resolvers.iter().all(|resolver| ids(resolver) == ["new"]), "{resolvers:?}");
    old.close().await.unwrap();
    let _changed = discovery.register(named("product", "old", 7071).version("2")).await.unwrap();
    eventually("one more of version 2", async || ids(&resolvers[0]) == ["new", "old"]).await;
    assert!(resolvers[1..].iter().all(|resolver| ids(resolver) == ["new"]), "{resolvers:?}");
    server.stop().await;
}

#[tokio::test]
async fn changes_tell_the_present_and_then_what_comes() {
    let server = server().await;
    let discovery = client(&server).await;
    let first = discovery.register(named("product", "product-1", 7070)).await.unwrap();
    let mut changes = discovery.resolver("product").await.unwrap().changes();
    assert_eq!(soon(changes.next()).await.unwrap().instances().len(), 1);
    // Of another client: closing this one takes its own along.
    let _second = client(&server).await.register(named("product", "product-2", 7071)).await.unwrap();
    assert_eq!(soon(changes.next()).await.unwrap().instances().len(), 2);
    // Who was slow gets the latest.
    let third = discovery.register(named("product", "product-3", 7072)).await.unwrap();
    let watch = discovery.resolver("product").await.unwrap();
    third.close().await.unwrap();
    first.close().await.unwrap();
    eventually("two are gone", async || ids(&watch) == ["product-2"]).await;
    assert_eq!(soon(StreamExt::next(&mut changes)).await.unwrap().instances().len(), 1);
    soon(discovery.close()).await;
    assert!(soon(changes.next()).await.is_none());
    assert_eq!(ids(&watch), ["product-2"], "what was known is still answered");
    assert!(watch.snapshot().stale().is_some());
    assert!(matches!(watch.wait_for_first().await, Ok(found) if found.id.as_str() == "product-2"));
    assert!(matches!(discovery.resolver("product").await, Err(Error::Closed)));
    server.stop().await;
}

#[tokio::test]
async fn serves_the_last_list_while_no_server_is_there() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let discovery = connect(network.addr).await.unwrap();
    let near = client(&server).await;
    let _kept = near.register(named("product", "product-1", 7070)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    network.become_(State::Cut);
    eventually("it is stale", async || products.snapshot().stale().is_some()).await;
    assert_eq!(ids(&products), ["product-1"]);
    let younger = products.snapshot().stale().unwrap();
    eventually("its age grows", async || products.snapshot().stale().unwrap() > younger).await;
    // A new resolver of the same list is served as well.
    let query = Query { zone: Some("a".into()), ..products.query().clone() };
    let filtered = discovery.resolver_for(query).in_background().unwrap();
    eventually("the filter knows", async || filtered.snapshot().is_known()).await;
    let _second = near.register(named("product", "product-2", 7071).zone("a")).await.unwrap();
    network.become_(State::Whole);
    eventually("it caught up", async || products.snapshot().stale().is_none()).await;
    assert_eq!(
        (ids(&products), ids(&filtered)),
        (vec!["product-1".into(), "product-2".into()], vec!["product-2".into()])
    );
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_does_not_empty_the_list() {
    let first = server().await;
    let addr = first.rpc_addr();
    let grace = Duration::from_secs(20);
    let discovery = Discovery::builder().servers(addr).empty_grace(grace).timeout(HANG).connect().await.unwrap();
    // Registered once: nobody registers them again.
    for (service, port) in [("product", 7070), ("order", 6060)] {
        let new = named(service, &format!("{service}-1"), port).into_registration().unwrap();
        discovery.register_once(&new).await.unwrap();
    }
    let (products, orders) = (discovery.resolver("product").await.unwrap(), discovery.resolver("order").await.unwrap());
    first.stop().await;
    let clock = StoppedClock::new();
    let second = server_on(addr).await;
    clock.passing(Duration::from_millis(50), discovery.connected()).await.unwrap();
    // The empty server is there and has answered; then one service registers again, the other does not.
    eventually("it is asked", async || second_watches(&discovery).await).await;
    assert_eq!((ids(&products), ids(&orders)), (vec!["product-1".into()], vec!["order-1".into()]));
    assert!(products.snapshot().stale().is_some());
    let _back = discovery.register(named("product", "product-2", 7071)).await.unwrap();
    eventually("the one that came back", async || ids(&products) == ["product-2"]).await;
    assert_eq!(products.snapshot().stale(), None);
    assert_eq!(ids(&orders), ["order-1"]);
    clock
        .passing(Duration::from_secs(1), eventually("the grace is over", async || orders.instances().is_empty()))
        .await;
    drop(clock);
    assert_eq!(orders.snapshot().stale(), None, "asked again, and believed");
    second.stop().await;
}

async fn second_watches(discovery: &Discovery) -> bool {
    discovery.status().await.is_ok_and(|status| status.doors.watches == 1)
}

#[tokio::test]
async fn the_first_list_is_waited_for_until_the_deadline() {
    let lazy = Discovery::builder().servers(nowhere().await).connect_lazy().unwrap();
    let resolve = lazy.resolver("product").timeout(Duration::from_millis(200));
    let error = soon(resolve.into_future()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let waiting = lazy.resolver("product").in_background().unwrap();
    let (first, ()) = tokio::join!(soon(waiting.wait_for_first()), async {
        sleep(Duration::from_millis(1)).await;
        lazy.close().await;
    });
    assert_eq!(first.unwrap_err(), Error::Closed);
}

fn with_file(servers: impl Into<roundsman::Servers>, path: &Path) -> Builder {
    Discovery::builder().servers(servers).snapshot_file(path).timeout(HANG)
}

#[tokio::test]
async fn a_program_that_starts_without_any_server_finds_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let server = server().await;
    let near = client(&server).await;
    let _product = near.register(named("product", "product-1", 7070)).await.unwrap();
    let _order = near.register(named("order", "order-1", 6060)).await.unwrap();
    let first_life = with_file(server.rpc_addr(), &path).connect().await.unwrap();
    let products = first_life.resolver("product").await.unwrap();
    assert_eq!(ids(&products), ["product-1"]);
    soon(first_life.close()).await;

    let second_life = with_file(nowhere().await, &path).connect_lazy().unwrap();
    let products = soon(second_life.resolver("product").into_future()).await.unwrap();
    assert_eq!(ids(&products), ["product-1"]);
    assert!(products.snapshot().stale().is_some());
    // Only what was resolved is known.
    let unknown = second_life.resolver("order").timeout(Duration::from_millis(200));
    assert!(matches!(soon(unknown.into_future()).await, Err(Error::Unreachable { .. })));
    soon(second_life.close()).await;

    // A server corrects it; what is saved for other services stays.
    let third_life = with_file(server.rpc_addr(), &path).connect().await.unwrap();
    let orders = third_life.resolver("order").await.unwrap();
    assert_eq!((ids(&orders), orders.snapshot().stale()), (vec!["order-1".into()], None));
    soon(third_life.close()).await;
    let saved = std::fs::read_to_string(&path).unwrap();
    assert!(saved.contains("product-1") && saved.contains("order-1"), "{saved}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    server.stop().await;
}

#[tokio::test]
async fn a_broken_snapshot_file_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    std::fs::write(&path, "{\"version\":1,\"names").unwrap();
    let server = server().await;
    let discovery = with_file(server.rpc_addr(), &path).connect().await.unwrap();
    let _kept = discovery.register(named("product", "product-1", 7070)).await.unwrap();
    let products = soon(discovery.resolver("product").into_future()).await.unwrap();
    assert_eq!(ids(&products), ["product-1"]);
    eventually("it is written anew", async || {
        std::fs::read_to_string(&path).is_ok_and(|saved| saved.ends_with('}') && saved.contains("product-1"))
    })
    .await;
    // Nor one that cannot be written.
    let nowhere = with_file(server.rpc_addr(), &folder.path().join("no/such/folder")).connect().await.unwrap();
    assert_eq!(ids(&nowhere.resolver("product").await.unwrap()), ["product-1"]);
    soon(nowhere.close()).await;
    server.stop().await;
}

#[test]
fn after_close_no_resolver_runs() {
    let folder = tempfile::tempdir().unwrap();
    let servers = tokio::runtime::Runtime::new().unwrap();
    let server = servers.block_on(server());
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let discovery = with_file(server.rpc_addr(), &folder.path().join("peers.json")).connect().await.unwrap();
        let all = discovery.resolver_for(Query::default()).await.unwrap();
        assert!(alive() > 0);
        soon(discovery.close()).await;
        assert_eq!(alive(), 0);
        drop((discovery, all));

        // Dropping the last handle ends it as well, if a moment later.
        let discovery = client(&server).await;
        let all = discovery.resolver_for(Query::default()).await.unwrap();
        let again = all.clone();
        drop((discovery, all));
        let new = client(&server).await.register(instance("product", 7070)).await.unwrap();
        eventually("a resolver alone is followed", async || again.pick().is_some_and(|found| found.id == *new.id()))
            .await;
        drop((again, new));
        eventually("all tasks ended", async || alive() == 0).await;
    });
    servers.block_on(server.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_see_only_whole_lists() {
    let server = server().await;
    let discovery = client(&server).await;
    let stable = discovery.register(named("product", "a-stable", 7070)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (products, stop) = (products.clone(), Arc::clone(products.pick().unwrap().instance()));
        readers.spawn(async move {
            while products.instances().len() < 50 {
                assert!(products.pick().is_some());
                assert_eq!(products.instances()[0].id, stop.id);
                tokio::task::yield_now().await;
            }
        });
    }
    let mut kept = vec![stable];
    for n in 0..49 {
        kept.push(discovery.register(named("product", &format!("b-{n}"), 7100 + n)).await.unwrap());
    }
    while let Some(reader) = soon(readers.join_next()).await {
        reader.unwrap();
    }
    server.stop().await;
}
