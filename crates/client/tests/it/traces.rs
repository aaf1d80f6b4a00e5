//! The trace of a request goes along with the calls made for it.

use axum::{Router, extract::State, http::StatusCode, middleware::from_fn, routing::get};
use roundsman::{Discovery, TraceContext};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    backend::{Manner, Service, patient},
    support::{client, server, soon},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

#[tokio::test]
async fn goes_along_with_each_call_in_its_scope() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let product = patient(&discovery, "product");
    let last = || {
        let seen = service.backends[0].seen().pop().unwrap();
        (seen.header("traceparent").map(str::to_owned), seen.header("tracestate").map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    soon(product.get("/").send()).await.unwrap();
    assert_eq!(last(), (None, None));
    let around = TraceContext::parse(PARENT, Some("a=1, b=2")).unwrap();
    let other = TraceContext::parse(OTHER, None).unwrap();
    around
        .scope(async {
            soon(product.get("/").send()).await.unwrap();
            assert_eq!(last(), (some(PARENT), some("a=1,b=2")));
            soon(product.get("/").trace(&other).send()).await.unwrap();
            assert_eq!(last(), (some(OTHER), None), "the one named goes first");
            soon(product.get("/").header("traceparent", OTHER).send()).await.unwrap();
            assert_eq!(last(), (some(OTHER), None), "and so does a header");
        })
        .await;
    soon(product.get("/").send()).await.unwrap();
    assert_eq!(last(), (None, None), "the scope is over");
    server.stop().await;
}

#[tokio::test]
async fn axum_opens_a_scope_for_each_request() {
    async fn buy(State(discovery): State<Discovery>) -> StatusCode {
        patient(&discovery, "product").get("/").send().await.unwrap().status()
    }
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let routes =
        Router::new().route("/", get(buy)).layer(from_fn(roundsman::trace::carry)).with_state(discovery.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _order =
        discovery.register(crate::support::instance("order", listener.local_addr().unwrap().port())).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    for (sent, arrives) in [(Some(PARENT), Some(PARENT)), (None, None), (Some("00-broken"), None)] {
        let request = patient(&discovery, "order").get("/");
        let request = match sent {
            Some(sent) => request.header("traceparent", sent),
            None => request,
        };
        assert_eq!(soon(request.send()).await.unwrap().status(), 200);
        assert_eq!(service.backends[0].seen().pop().unwrap().header("traceparent"), arrives, "{sent:?}");
    }
    server.stop().await;
}
