//! Calls, layers and endpoints that use some of a service's instances.

use std::{collections::BTreeSet, time::Duration};

use roundsman::{Discovery, NewInstance, Policy, Query, Registration, http::Error};

use crate::{
    backend::{Backend, Manner, patient},
    support::{client, eventually, instance, server, soon},
};

/// Instances `i0` to `i3` that differ in what may be asked for.
async fn varied(discovery: &Discovery) -> (Vec<Backend>, Vec<Registration>) {
    let say: [fn(NewInstance) -> NewInstance; 4] = [
        |new| new.version("1").tag("fruit").zone("a"),
        |new| new.version("2").tag("fruit").zone("b").meta("shelf", "3"),
        |new| new.version("2").tag("fruit").tag("fresh").zone("a").meta("shelf", "4"),
        |new| new.version("2"),
    ];
    let (mut backends, mut registrations) = (Vec::new(), Vec::new());
    for (n, say) in say.into_iter().enumerate() {
        let backend = Backend::start(Manner::Well).await;
        let new = say(instance("product", backend.addr.port()).id(format!("i{n}")).unwrap());
        registrations.push(discovery.register(new).await.unwrap());
        backends.push(backend);
    }
    (backends, registrations)
}

fn selections() -> [(Query, &'static [&'static str]); 6] {
    [
        (Query::default(), &["i0", "i1", "i2", "i3"]),
        (Query::default().version("2"), &["i1", "i2", "i3"]),
        (Query::default().tag("fruit").version("2"), &["i1", "i2"]),
        (Query::default().tag("fruit").tag("fresh"), &["i2"]),
        (Query::default().zone("a"), &["i0", "i2"]),
        (Query::default().meta("shelf", "3"), &["i1"]),
    ]
}

#[tokio::test]
async fn calls_and_resolvers_use_what_a_query_matches() {
    let server = server().await;
    let discovery = client(&server).await;
    let (_backends, _registrations) = varied(&discovery).await;
    for (query, expected) in selections() {
        // By turns: twelve calls reach all of them, however busy the machine is.
        let product = patient(&discovery, "product").policy(Policy::RoundRobin).select(query.clone());
        let mut called = BTreeSet::new();
        for _ in 0..12 {
            called.insert(soon(product.get("/").send()).await.unwrap().instance().id.to_string());
        }
        assert_eq!(called.iter().collect::<Vec<_>>(), expected, "{query:?}");
        let resolver = discovery.resolver("product").select(query.clone()).await.unwrap();
        let listed: Vec<_> = resolver.instances().iter().map(|instance| instance.id.to_string()).collect();
        assert_eq!(listed, expected, "{query:?}");
    }
    // What nobody is, is waited for and not replaced.
    let nobody = patient(&discovery, "product").select(Query::default().version("9"));
    let error = soon(nobody.wait_for_instance(Duration::ZERO).get("/").send()).await.unwrap_err();
    assert!(matches!(error, Error::NobodyThere { .. }), "{error}");
    let elsewhere = patient(&discovery, "product").select(Query::service("order".parse().unwrap()));
    let error = soon(elsewhere.get("/").send()).await.unwrap_err();
    assert!(error.to_string().contains("services"), "{error}");
    eventually("one watch for all of them", async || discovery.status().await.unwrap().doors.watches == 1).await;
    server.stop().await;
}

#[cfg(feature = "middleware")]
#[tokio::test]
async fn layers_use_what_a_query_matches() {
    let server = server().await;
    let discovery = client(&server).await;
    let (_backends, _registrations) = varied(&discovery).await;
    for (query, expected) in selections() {
        let http = crate::middleware::with(discovery.middleware().policy(Policy::RoundRobin).select(query.clone()));
        let mut called = BTreeSet::new();
        for _ in 0..12 {
            let answer = soon(http.get("http://product.roundsman/").send()).await.unwrap();
            called.insert(answer.extensions().get::<std::sync::Arc<roundsman::Instance>>().unwrap().id.to_string());
        }
        assert_eq!(called.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
    let canary = crate::middleware::with(discovery.middleware().split([("1", 1.0)]));
    for n in 0..10 {
        let key = roundsman::middleware::Key::new(format!("user-{n}"));
        let answer = soon(canary.get("http://product.roundsman/").with_extension(key).send()).await.unwrap();
        assert_eq!(answer.extensions().get::<std::sync::Arc<roundsman::Instance>>().unwrap().id.as_str(), "i0");
    }
    let wrong = crate::middleware::with(discovery.middleware().split([("1", 1.5)]));
    assert!(soon(wrong.get("http://product.roundsman/").send()).await.is_err());
    server.stop().await;
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn endpoints_are_what_a_query_matches() {
    use futures::StreamExt;
    use tower::discover::Change;
    let server = server().await;
    let discovery = client(&server).await;
    let (_backends, _registrations) = varied(&discovery).await;
    let resolver = discovery.resolver("product").select(Query::default().tag("fruit").version("2")).await.unwrap();
    let mut endpoints = resolver.endpoints(std::sync::Arc::clone);
    for expected in ["i1", "i2"] {
        let Some(Ok(Change::Insert(id, _))) = soon(endpoints.next()).await else { panic!("it is there") };
        assert_eq!(id.as_str(), expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_subset_may_be_part_of_a_selection() {
    let server = server().await;
    let discovery = client(&server).await;
    let (_backends, _registrations) = varied(&discovery).await;
    let product = patient(&discovery, "product").select(Query::default().version("2").subset("order-1", 1));
    let mut called = BTreeSet::new();
    for _ in 0..12 {
        called.insert(soon(product.get("/").send()).await.unwrap().instance().id.to_string());
    }
    assert!(called.len() == 1 && !called.contains("i0"), "{called:?}");
    server.stop().await;
}
