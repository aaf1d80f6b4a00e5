//! The product service as a process, and its HTTP contract.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has failed"
)]

use std::sync::Arc;

use reqwest::StatusCode;
use roundsman::{Discovery, Expect, INSTANCE_HEADER, InstanceStatus};
use roundsman_product::{routes::routes, stock::Stock};
use roundsman_testing::{Process, all, available, eventually, free_address, http, run, server, server_at};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const PRODUCT: &str = env!("CARGO_BIN_EXE_product");

/// Serves a full stock in this process until the set is dropped.
async fn serve(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, routes(Arc::new(Stock::initial()))).await.unwrap() });
    url
}

async fn json_of(response: reqwest::Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn shows_sells_and_sells_out() {
    let mut tasks = JoinSet::new();
    let (url, http) = (serve(&mut tasks).await, http());
    let banana = format!("{url}/product/bbb");
    let (status, body) = json_of(http.get(&banana).send().await.unwrap()).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "id": "bbb", "name": "banana", "quantity": 7 })));
    for left in (0..7).rev() {
        let (status, body) = json_of(http.put(&banana).send().await.unwrap()).await;
        assert_eq!((status, &body["quantity"]), (StatusCode::OK, &json!(left)));
    }
    let (status, body) = json_of(http.put(&banana).send().await.unwrap()).await;
    assert_eq!((status, body), (StatusCode::CONFLICT, json!({ "error": "`bbb` is sold out" })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_purchases_never_sell_more_than_there_is() {
    let mut tasks = JoinSet::new();
    let (url, http) = (serve(&mut tasks).await, http());
    let mut buyers = JoinSet::new();
    for _ in 0..40 {
        let request = http.put(format!("{url}/product/aaa"));
        buyers.spawn(async move { request.send().await.unwrap().status() });
    }
    let statuses = buyers.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::OK).count(), 10);
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CONFLICT).count(), 30);
}

#[tokio::test]
async fn bad_input_is_answered_in_json() {
    let mut tasks = JoinSet::new();
    let (url, http) = (serve(&mut tasks).await, http());
    let long = "x".repeat(65);
    for (path, expected) in [
        ("/product/zzz", StatusCode::NOT_FOUND),
        ("/product/", StatusCode::NOT_FOUND),
        ("/", StatusCode::NOT_FOUND),
        ("/product/a%2fb", StatusCode::BAD_REQUEST),
        ("/product/%ff", StatusCode::BAD_REQUEST),
        ("/product/%00", StatusCode::BAD_REQUEST),
        (&format!("/product/{long}"), StatusCode::BAD_REQUEST),
    ] {
        let (status, body) = json_of(http.get(format!("{url}{path}")).send().await.unwrap()).await;
        assert_eq!(status, expected, "{path}");
        assert!(body["error"].is_string(), "{path}: {body}");
    }
    let put = |key: &str| http.put(format!("{url}/product/aaa")).header("idempotency-key", key).send();
    assert_eq!(put("a b").await.unwrap().status(), StatusCode::BAD_REQUEST);
    let (status, body) = json_of(http.post(format!("{url}/product/aaa")).send().await.unwrap()).await;
    assert_eq!((status, body["error"].is_string()), (StatusCode::METHOD_NOT_ALLOWED, true));
    let (status, _) = json_of(http.delete(format!("{url}/product/aaa")).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "an undo must say of what");
}

#[tokio::test]
async fn a_sale_with_a_key_happens_once_and_can_be_undone() {
    let mut tasks = JoinSet::new();
    let (url, http) = (serve(&mut tasks).await, http());
    let apple = format!("{url}/product/aaa");
    for _ in 0..3 {
        let (status, body) = json_of(http.put(&apple).header("Idempotency-Key", "k1").send().await.unwrap()).await;
        assert_eq!((status, &body["quantity"]), (StatusCode::OK, &json!(9)));
    }
    let (_, body) = json_of(http.delete(&apple).header("Idempotency-Key", "k1").send().await.unwrap()).await;
    assert_eq!(body["quantity"], json!(10));
    let (status, _) = json_of(http.put(&apple).header("Idempotency-Key", "k1").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::GONE);
}

#[tokio::test]
async fn registers_at_start_and_says_goodbye_on_sigterm() {
    let server = server().await;
    let discovery = Discovery::connect(server.rpc_addr()).await.unwrap();
    let product = Process::start_with(PRODUCT, server.rpc_addr(), &["--stock", "3"]).await;
    available(&discovery, "product", 1).await;
    let (_, banana) = json_of(http().get(product.url("/product/bbb")).send().await.unwrap()).await;
    assert_eq!(banana["quantity"], json!(3), "as the command line says");
    let found = discovery.get("product").await.unwrap();
    assert_eq!(found.address.socket_addr(), Some(product.address));
    assert_eq!((found.status, found.version.as_deref()), (InstanceStatus::Passing, Some(env!("CARGO_PKG_VERSION"))));
    // Visits know it by its id, so whoever gets this port next is not mistaken for it.
    let health = http().get(product.url("/health")).send().await.unwrap();
    assert_eq!(health.headers()[INSTANCE_HEADER], found.id.as_str());
    let expected = found.check.expect.as_deref().and_then(Expect::as_header);
    assert_eq!(expected, Some((INSTANCE_HEADER, found.id.as_str())));

    assert!(product.terminate().await.success());
    let after = all(&discovery, "product").await;
    assert!(after.is_empty(), "it left by itself and was not evicted: {after:?}");
    discovery.close().await;
    server.stop().await;
}

#[tokio::test]
async fn serves_without_discovery_and_registers_when_it_comes() {
    let address = free_address().await;
    let product = Process::start(PRODUCT, address).await;
    let (status, health) = json_of(http().get(product.url("/health")).send().await.unwrap()).await;
    assert_eq!((status, health), (StatusCode::OK, json!({ "status": "passing", "checks": {} })));

    let server = server_at(address).await;
    let discovery = Discovery::connect(address).await.unwrap();
    available(&discovery, "product", 1).await;
    discovery.close().await;
    server.stop().await;
    drop(product);
}

#[tokio::test]
async fn an_instance_restarted_at_its_address_leaves_no_ghost() {
    let server = server().await;
    let discovery = Discovery::connect(server.rpc_addr()).await.unwrap();
    let product = Process::start(PRODUCT, server.rpc_addr()).await;
    let address = product.address;
    available(&discovery, "product", 1).await;
    drop(product);
    eventually("the dead one to vanish", async || discovery.get("product").await.is_err()).await;

    let _product = Process::start_at(PRODUCT, address, server.rpc_addr()).await;
    available(&discovery, "product", 1).await;
    assert_eq!(all(&discovery, "product").await.len(), 1, "the earlier life is replaced");
    discovery.close().await;
    server.stop().await;
}

#[tokio::test]
async fn says_what_is_wrong_with_its_command_line() {
    let (code, said) = run(PRODUCT, &["--listen", "0.0.0.0:7070"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--advertise"), "{said}");
    let (code, said) = run(PRODUCT, &["--advertise", "nowhere"]).await;
    assert_eq!(code, Some(2), "{said}");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let (code, said) = run(PRODUCT, &["--listen", &taken.1]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot listen on"), "{said}");
}

#[tokio::test]
async fn the_probe_tells_alive_from_dead() {
    let product = Process::start(PRODUCT, free_address().await).await;
    let listen = product.address.to_string();
    assert_eq!(run(PRODUCT, &["--listen", &listen, "--probe"]).await.0, Some(0));
    let everywhere = format!("0.0.0.0:{}", product.address.port());
    assert_eq!(run(PRODUCT, &["--listen", &everywhere, "--probe"]).await.0, Some(0));
    let nobody = free_address().await.to_string();
    assert_eq!(run(PRODUCT, &["--listen", &nobody, "--probe"]).await.0, Some(1));
}
