//! A part of a service's instances, chosen by the servers.

use std::sync::Arc;

use roundsman::{
    Event, Query,
    protocol::{Known, Subset, Version},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

use crate::{
    model::{Model, at, instance},
    support::{HANG, connect, eventually, soon},
};

fn ids(resolver: &roundsman::Resolver) -> Vec<String> {
    resolver.instances().iter().map(|instance| instance.id.to_string()).collect()
}

#[tokio::test]
async fn each_question_tells_whom_it_has_and_the_answer_who_comes_and_goes() {
    let model = Model::start(Version::V3, vec![instance("a", 1), instance("b", 1)]).await;
    let discovery = connect(model.addr).await.unwrap();
    let some = discovery.resolver("product").subset_as("order-7", 2).await.unwrap();
    assert_eq!(ids(&some), ["a", "b"]);
    let subset = Some(Subset { client: "order-7".into(), size: 2 });
    assert_eq!(some.query().subset, subset);
    model.change(vec![instance("b", 1), instance("c", 1)]);
    eventually("one took another's place", async || ids(&some) == ["b", "c"]).await;
    let known = |asked: &crate::model::Asked| match &asked.known {
        Some(Known::Ids(ids)) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        other => panic!("{other:?}"),
    };
    eventually("it went on from there", async || {
        model.with(|state| state.asked.last().is_some_and(|last| known(last) == "b c"))
    })
    .await;
    model.with(|state| {
        let said: Vec<_> = state.asked.iter().map(known).collect();
        assert_eq!((said[0].as_str(), said.last().unwrap().as_str()), ("", "b c"), "{said:?}");
        assert!(said.contains(&"a b".to_owned()) && state.asked.iter().all(|asked| asked.subset == subset));
        // Who follows all of them is another question.
        state.asked.clear();
    });
    let all = discovery.resolver("product").await.unwrap();
    assert_eq!(ids(&all), ["b", "c"]);
    assert!(model.with(|state| state.asked.iter().any(|asked| asked.subset.is_none())));
    // Through a restart: it keeps what it has.
    model.restart(|_| {});
    let asked_again = || model.with(|state| state.asked.iter().any(|asked| asked.subset.is_some()));
    eventually("it asked again", async || asked_again()).await;
    eventually("it is certain again", async || some.snapshot().stale().is_none()).await;
    assert_eq!(ids(&some), ["b", "c"]);
    // Nobody follows it any more once nobody holds it.
    drop(some);
    model.restart(|_| {});
    eventually("the other came back", async || model.with(|state| !state.asked.is_empty())).await;
    eventually("the other is certain", async || all.snapshot().stale().is_none()).await;
    assert!(model.with(|state| state.asked.iter().all(|asked| asked.subset.is_none())));
    discovery.close().await;
}

#[tokio::test]
async fn without_a_name_it_is_the_same_one_for_the_whole_process() {
    let model = Model::start(Version::V3, vec![instance("a", 1)]).await;
    let discovery = connect(model.addr).await.unwrap();
    let one = discovery.resolver("product").subset(1).await.unwrap();
    let two = discovery.resolver("product").subset(1).await.unwrap();
    assert_eq!(one.query(), two.query());
    let client = one.query().subset.clone().unwrap().client;
    assert!((1..=64).contains(&client.len()));
    let error = discovery.resolver("product").subset(0).await.unwrap_err();
    assert!(error.to_string().contains("subset.size"), "{error}");
    let error = discovery.resolver("product").subset_as("a b", 1).await.unwrap_err();
    assert!(error.to_string().contains("subset.client"), "{error}");
    discovery.close().await;
}

#[tokio::test]
async fn a_server_that_knows_no_subsets_gives_all() {
    let all: Vec<_> = (0..5).map(|n| instance(&format!("p{n}"), 1)).collect();
    let model = Model::start(Version::V2, all).await;
    let discovery = connect(model.addr).await.unwrap();
    let some = soon(discovery.resolver("product").subset_as("me", 2).into_future()).await.unwrap();
    assert_eq!(some.instances().len(), 5);
    let subset = Some(Subset { client: "me".into(), size: 2 });
    let query = Query { subset, ..Query::service("product".try_into().unwrap()) };
    let mut watch = discovery.watch(query).unwrap();
    assert!(matches!(soon(watch.next()).await, Some(Event::Snapshot(all)) if all.len() == 5));
    // It is upgraded: from now on it is the subset.
    model.restart(|state| {
        state.version = Version::V3;
        state.instances.truncate(2);
    });
    eventually("only the subset is left", async || ids(&some) == ["p0", "p1"]).await;
    for gone in ["p2", "p3", "p4"] {
        let event = soon(watch.next()).await;
        assert!(matches!(&event, Some(Event::Removed(removed)) if removed.id.as_str() == gone), "{event:?}");
    }
    discovery.close().await;
}

/// Answers each request once it is let go.
async fn slow(go: Arc<Notify>, begun: Arc<Notify>, name: &'static str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, mut tasks) = (listener.local_addr().unwrap().to_string(), JoinSet::new());
    tasks.spawn(async move {
        let mut calls = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (go, begun) = (Arc::clone(&go), Arc::clone(&begun));
            calls.spawn(async move {
                let mut head = vec![0; 4096];
                while let Ok(1..) = stream.read(&mut head).await {
                    begun.notify_one();
                    go.notified().await;
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    drop(stream.write_all(answer.as_bytes()).await);
                }
            });
        }
    });
    (addr, tasks)
}

#[cfg(feature = "http")]
#[tokio::test]
async fn a_call_on_an_instance_that_leaves_the_subset_goes_on() {
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (old, _old) = slow(Arc::clone(&go), Arc::clone(&begun), "old").await;
    let (new, _new) = slow(Arc::clone(&go), Arc::clone(&begun), "new").await;
    let model = Model::start(Version::V3, vec![at(&old, "old", 1)]).await;
    let discovery = connect(model.addr).await.unwrap();
    let products = discovery.http("product").subset_as("me", 1).timeout(HANG).try_timeout(HANG);
    let some = discovery.resolver("product").subset_as("me", 1).await.unwrap();
    let call = products.get("/").send();
    let meanwhile = async {
        begun.notified().await;
        model.change(vec![at(&new, "new", 1)]);
        eventually("the other took its place", async || ids(&some) == ["new"]).await;
        go.notify_one();
    };
    let (answer, ()) = soon(async { tokio::join!(call, meanwhile) }).await;
    assert_eq!(answer.unwrap().text(), "old", "nobody broke it off");
    go.notify_one();
    let answer = soon(products.get("/").send()).await.unwrap();
    assert_eq!(answer.text(), "new", "and the next goes to the one that took its place");
    discovery.close().await;
}
