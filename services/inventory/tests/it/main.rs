//! Reservations, with real `inventory` and `product` processes.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has failed"
)]

use reqwest::{StatusCode, header};
use roundsman::Discovery;
use roundsman_testing::{Process, available, eventually, free_address, http, server, sibling};
use serde_json::{Value, json};

const INVENTORY: &str = env!("CARGO_BIN_EXE_inventory");

async fn reserve(inventory: &Process, id: &str) -> (StatusCode, Value) {
    let response = http().post(inventory.url(&format!("/reserve/{id}"))).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn reserves_what_a_product_still_has() {
    let server = server().await;
    let discovery = Discovery::connect(server.rpc_addr()).await.unwrap();
    let product = Process::start_with(&sibling(INVENTORY, "product"), server.rpc_addr(), &["--stock", "3"]).await;
    let inventory = Process::start(INVENTORY, server.rpc_addr()).await;
    available(&discovery, "product", 1).await;
    available(&discovery, "inventory", 1).await;

    assert_eq!(reserve(&inventory, "aaa").await, (StatusCode::OK, json!({ "id": "aaa", "reserved": 1, "left": 2 })));
    assert_eq!(reserve(&inventory, "bbb").await.1["reserved"], 1, "each product is counted by itself");
    // One is sold meanwhile: of the two that are left, one is reserved.
    assert_eq!(http().put(product.url("/product/aaa")).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(reserve(&inventory, "aaa").await.1, json!({ "id": "aaa", "reserved": 2, "left": 0 }));
    let (status, body) = reserve(&inventory, "aaa").await;
    assert_eq!((status, body), (StatusCode::CONFLICT, json!({ "error": "all 2 that are left are reserved" })));
    for unknown in ["zzz", "a%2fb", "..%2fhealth", "%ff", &"x".repeat(65)] {
        let (status, body) = reserve(&inventory, unknown).await;
        assert_eq!((status, body["error"].is_string()), (StatusCode::NOT_FOUND, true), "{unknown}: {body}");
    }

    assert!(product.terminate().await.success());
    eventually("inventory to know that nobody sells", async || {
        reserve(&inventory, "aaa").await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert!(inventory.terminate().await.success());
    discovery.close().await;
    server.stop().await;
}

#[tokio::test]
async fn without_discovery_it_says_when_to_try_again() {
    let inventory = Process::start(INVENTORY, free_address().await).await;
    assert_eq!(http().get(inventory.url("/health")).send().await.unwrap().status(), StatusCode::OK);
    let response = http().post(inventory.url("/reserve/aaa")).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()[header::RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    let body: Value = response.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("try again in a second"), "{body}");
}
