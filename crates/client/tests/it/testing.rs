//! The server for tests: to its clients it is as the real one, as far as it goes.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use roundsman::{
    Codec, Discovery, Error, Event, InstanceStatus, Query, RegistrationState, Scope, Trouble, testing::Server,
};
use tokio::net::TcpStream;
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

use crate::support::{HANG, eventually, instance, server, soon};

/// The addresses of a real server, and of one for tests.
async fn both() -> (roundsman_discovery::Server, Server) {
    (server().await, Server::start().await.unwrap())
}

fn builder(addr: std::net::SocketAddr) -> roundsman::Builder {
    Discovery::builder().servers(addr).timeout(HANG)
}

/// What any server is held to.
async fn contract(addr: std::net::SocketAddr, codec: Codec) {
    let (near, far) = (builder(addr).codec(codec), builder(addr).codec(codec));
    let (near, far) = (near.connect().await.unwrap(), far.connect().await.unwrap());
    let product = Query::service("product".parse().unwrap());
    assert!(far.get("product").await.unwrap_err().is_not_found());
    assert!(far.list(product.clone()).await.unwrap_err().is_not_found());
    let mut changes = far.watch(product.clone()).unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(none)) if none.is_empty()));

    let first = instance("product", 7070).id("product-1").unwrap().tag("fruit").meta("shelf", "3");
    let first = near.register(first).await.unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Changed(one)) if one.id == *first.id()));
    assert_eq!(far.get("product").await.unwrap().id, *first.id());
    let second = near.register(instance("product", 7071).id("product-2").unwrap().zone("a")).await.unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Event::Changed(one)) if one.id == *second.id()));
    // Changes of others are none.
    let order = near.register(instance("order", 6060)).await.unwrap();
    assert_eq!(far.list(product.clone()).await.unwrap().len(), 2);
    assert_eq!(far.list(product.clone().meta("shelf", "3")).await.unwrap()[0].id, *first.id());

    second.draining().await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Removed(one) if one.status == Some(InstanceStatus::Draining)), "{told:?}");
    assert_eq!(far.list(product.clone().scope(Scope::Registered)).await.unwrap().len(), 2);
    // Registering the same again does not end it.
    second.update(|instance| instance.weight(2)).await.unwrap();
    assert_eq!(far.list(product.clone()).await.unwrap().len(), 1);
    second.passing().await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Changed(one) if one.weight == 2), "{told:?}");

    let summary = far.services().await.unwrap();
    assert_eq!(
        summary.iter().map(|one| (one.name.as_str(), one.passing)).collect::<Vec<_>>(),
        [("order", 1), ("product", 2)]
    );
    far.report(first.id(), Trouble::Timeout).await.unwrap();
    near.renew(first.id()).await.unwrap();
    first.close().await.unwrap();
    let told = soon(changes.next()).await.unwrap();
    assert!(matches!(&told, Event::Removed(one) if one.id.as_str() == "product-1" && one.status.is_none()), "{told:?}");
    let gone = "product-1".parse().unwrap();
    for error in [far.renew(&gone).await, far.deregister(&gone).await, far.drain(&gone, true).await] {
        assert!(error.unwrap_err().is_not_found());
    }
    assert!(far.report(&gone, Trouble::Timeout).await.unwrap_err().is_not_found());
    // Somebody else at its address takes its place.
    let third = near.register(instance("product", 7071).id("product-3").unwrap()).await.unwrap();
    eventually("the later one is there alone", async || {
        let left = far.list(product.clone()).await.unwrap();
        left.len() == 1 && left[0].id == *third.id()
    })
    .await;
    drop((second, order));
    soon(near.close()).await;
    soon(far.close()).await;
}

#[tokio::test]
async fn it_keeps_what_a_real_server_promises() {
    let (real, small) = both().await;
    for codec in [Codec::Postcard, Codec::Json] {
        let fresh = Server::start().await.unwrap();
        contract(fresh.addr(), codec).await;
        soon(fresh.stop()).await;
    }
    contract(real.rpc_addr(), Codec::Postcard).await;
    soon(small.stop()).await;
    real.stop().await;
}

#[tokio::test]
async fn a_test_decides_who_lives() {
    let server = Server::start().await.unwrap();
    let id = server.register(("product", "10.0.0.1:7070")).unwrap();
    let program = server.connect().await.unwrap();
    let products = program.resolver("product").await.unwrap();
    let me = program.register_in_background(instance("order", 6060).id("order-1").unwrap()).unwrap();
    soon(me.registered()).await;
    server.set_status(&id, InstanceStatus::Evicted, "GET /health: connection refused").unwrap();
    eventually("it is gone", async || products.pick().is_none()).await;
    assert!(matches!(program.get("product").await, Err(Error::Discovery(_))), "nobody is passing");
    server.set_status(&id, InstanceStatus::Passing, "reinstated").unwrap();
    eventually("it is back", async || products.pick().is_some()).await;
    program.report(&id, Trouble::Status(503)).await.unwrap();
    assert_eq!(server.reports(), [(id.clone(), Trouble::Status(503))]);
    server.deregister(&id).unwrap();
    assert!(server.deregister(&id).unwrap_err().is_not_found());
    assert!(server.set_status(&id, InstanceStatus::Passing, "").unwrap_err().is_not_found());
    assert_eq!(server.instances().iter().map(|one| one.id.as_str().to_owned()).collect::<Vec<_>>(), ["order-1"]);
    assert!(server.register(("a b", "10.0.0.1:7070")).is_err());
}

#[tokio::test]
async fn who_is_away_and_comes_back_without_memory_is_told_again() {
    let server = Server::start().await.unwrap();
    let addr = server.addr();
    let program = builder(addr).empty_grace(Duration::ZERO).connect().await.unwrap();
    let me = program.register(instance("order", 6060).id("order-1").unwrap()).await.unwrap();
    let orders = program.resolver("order").await.unwrap();
    soon(server.stop()).await;
    eventually("it is missed", async || orders.snapshot().stale().is_some()).await;
    let server = Server::start_on(addr).await.unwrap();
    eventually("it has registered again", async || server.instances().len() == 1).await;
    eventually("it knows", async || {
        matches!(*me.state().borrow(), RegistrationState::Registered) && orders.snapshot().stale().is_none()
    })
    .await;
    assert_eq!(orders.pick().unwrap().id, *me.id());
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let server = Server::start().await.unwrap();
    let shop = builder(server.addr()).namespace("shop").connect().await.unwrap();
    drop(shop.register(instance("product", 7070)).await.unwrap());
    assert!(server.instances().is_empty());
    assert!(server.connect().await.unwrap().get("product").await.unwrap_err().is_not_found());
    assert_eq!(shop.get("product").await.unwrap().namespace.as_str(), "shop");
}

#[tokio::test]
async fn a_thousand_watches_that_are_dropped_leave_room_for_others() {
    let server = Server::start().await.unwrap();
    let program = server.connect().await.unwrap();
    for _ in 0..3 {
        let mut watches: Vec<_> = (0..900).map(|_| program.watch(Query::default()).unwrap()).collect();
        for watch in &mut watches {
            soon(watch.next()).await.unwrap();
        }
        // All wait for something new.
        for watch in &mut watches {
            assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
        }
    }
    assert_eq!(soon(program.services()).await.unwrap(), []);
}

#[tokio::test]
async fn garbage_ends_one_connection_and_no_other() {
    let server = Server::start().await.unwrap();
    let program = server.connect().await.unwrap();
    let greeting = br#"{"roundsman":3,"codec":"json"}"#;
    let frames: [&[&[u8]]; 5] = [
        &[b"GET / HTTP/1.1"],
        &[b"\xff"],
        &[greeting, b"\xff\xff"],
        &[greeting, b"{}"],
        &[br#"{"roundsman":99,"codec":"json"}"#],
    ];
    for said in frames {
        let mut wire = Framed::new(TcpStream::connect(server.addr()).await.unwrap(), LengthDelimitedCodec::new());
        for frame in said {
            drop(wire.send(Bytes::from_static(frame)).await);
        }
        // At most a sentence, and then the end.
        while let Some(Ok(_)) = soon(wire.next()).await {}
    }
    // What has a readable head is answered in a sentence, and the connection stays.
    let mut wire = Framed::new(TcpStream::connect(server.addr()).await.unwrap(), LengthDelimitedCodec::new());
    wire.send(Bytes::from_static(greeting)).await.unwrap();
    soon(wire.next()).await.unwrap().unwrap();
    for (message, answer) in [
        (r#"{"Request":{"id":1,"message":{"Get":{"service":"a b"}}}}"#, "name: must be"),
        (r#"{"Request":{"id":2,"message":"Status"}}"#, "ask a real server"),
        (r#"{"Request":{"id":3,"message":"Services"}}"#, r#"{"Services":{"Ok":[]}}"#),
    ] {
        wire.send(Bytes::from_static(message.as_bytes())).await.unwrap();
        let said = soon(wire.next()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&said).contains(answer), "{said:?}");
    }
    assert_eq!(program.services().await.unwrap(), []);
}
