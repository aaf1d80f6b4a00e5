//! Purchases, with real `order` and `product` processes, and with product instances that misbehave.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has failed"
)]

mod fake;
mod rolling;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use fake::{Fake, Manners, Seen};
use reqwest::{StatusCode, header};
use roundsman::{Discovery, NewInstance};
use roundsman_discovery::Server;
use roundsman_testing::{Process, all, available, eventually, free_address, http, server, sibling};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

const ORDER: &str = env!("CARGO_BIN_EXE_order");

fn product() -> String {
    sibling(ORDER, "product")
}

/// A discovery server, a client of it, an order, and so many products.
struct World {
    server: Server,
    discovery: Discovery,
    order: Process,
    products: Vec<Process>,
    http: reqwest::Client,
}

impl World {
    async fn new(products: usize) -> Self {
        let server = server().await;
        let discovery = Discovery::connect(server.rpc_addr()).await.unwrap();
        let order = Process::start(ORDER, server.rpc_addr()).await;
        let mut world = Self { server, discovery, order, products: Vec::new(), http: http() };
        for _ in 0..products {
            world.products.push(Process::start(&product(), world.server.rpc_addr()).await);
        }
        available(&world.discovery, "product", products).await;
        available(&world.discovery, "order", 1).await;
        world
    }

    async fn buy(&self, id: &str) -> (StatusCode, Value) {
        let response = self.http.post(self.order.url(&format!("/purchase/{id}"))).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn end(self) {
        self.discovery.close().await;
        self.server.stop().await;
    }
}

/// How many are left at a product instance.
async fn left(http: &reqwest::Client, address: SocketAddr, id: &str) -> u64 {
    let product = http.get(format!("http://{address}/product/{id}")).send().await.unwrap();
    product.json::<Value>().await.unwrap()["quantity"].as_u64().unwrap()
}

fn seller(receipt: &Value) -> SocketAddr {
    receipt["sold_by"]["address"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn purchases_spread_over_three_products() {
    let world = World::new(3).await;
    let mut sold = BTreeMap::<SocketAddr, u64>::new();
    for _ in 0..12 {
        let (status, receipt) = world.buy("aaa").await;
        assert_eq!(status, StatusCode::OK, "{receipt}");
        *sold.entry(seller(&receipt)).or_default() += 1;
        assert_eq!(receipt["quantity"].as_u64(), Some(10 - sold[&seller(&receipt)]));
    }
    assert_eq!(sold.len(), 3, "everyone sold something: {sold:?}");
    for (address, sold) in sold {
        assert_eq!(left(&world.http, address, "aaa").await, 10 - sold);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_purchase_fails_while_a_product_is_killed() {
    let mut world = World::new(3).await;
    let victim = world.products.remove(0);
    let dead = victim.address;
    let bought = Arc::new(Semaphore::new(0));
    let mut buyers = JoinSet::new();
    // The two that survive have 20 apples and 14 bananas, so nothing is sold out for want of the third.
    for id in ["aaa", "bbb", "aaa"] {
        let (http, url) = (world.http.clone(), world.order.url(&format!("/purchase/{id}")));
        let bought = Arc::clone(&bought);
        buyers.spawn(async move {
            let mut receipts = Vec::new();
            for _ in 0..10 {
                let response = http.post(&url).send().await.unwrap();
                receipts.push((response.status(), response.json::<Value>().await.unwrap()));
                bought.add_permits(1);
            }
            receipts
        });
    }
    bought.acquire_many(6).await.unwrap().forget();
    drop(victim);

    let receipts = buyers.join_all().await.concat();
    let mut sold = BTreeMap::<(SocketAddr, String), u64>::new();
    for (status, receipt) in receipts {
        assert_eq!(status, StatusCode::OK, "{receipt}");
        *sold.entry((seller(&receipt), receipt["id"].as_str().unwrap().to_owned())).or_default() += 1;
    }
    assert_eq!(sold.values().sum::<u64>(), 30);
    for survivor in &world.products {
        for (id, stock) in [("aaa", 10), ("bbb", 7)] {
            let sold = sold.get(&(survivor.address, id.to_owned())).copied().unwrap_or_default();
            assert_eq!(left(&world.http, survivor.address, id).await, stock - sold, "{id} at {}", survivor.address);
        }
    }
    eventually("the dead one to leave the lookups", async || {
        let found = all(&world.discovery, "product").await;
        found.iter().all(|one| one.address.socket_addr() != Some(dead) || !one.status.is_available())
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn sold_out_is_said_only_when_everyone_is() {
    let world = World::new(2).await;
    for bought in 0..14 {
        let (status, receipt) = world.buy("bbb").await;
        assert_eq!(status, StatusCode::OK, "after {bought}: {receipt}");
    }
    let (status, body) = world.buy("bbb").await;
    assert_eq!((status, body["error"].as_str()), (StatusCode::CONFLICT, Some("`bbb` is sold out")));
    world.end().await;
}

#[tokio::test]
async fn bad_input_is_answered_in_json_and_buys_nothing() {
    let world = World::new(1).await;
    for (id, expected) in
        [("zzz", StatusCode::NOT_FOUND), ("a%2fb", StatusCode::BAD_REQUEST), ("%ff", StatusCode::BAD_REQUEST)]
    {
        let (status, body) = world.buy(id).await;
        assert_eq!((status, body["error"].is_string()), (expected, true), "{id}: {body}");
    }
    let url = world.order.url("/purchase/aaa");
    assert_eq!(world.http.head(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(world.http.delete(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(left(&world.http, world.products[0].address, "aaa").await, 10);
    let bought = world.http.get(&url).send().await.unwrap();
    assert_eq!(bought.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(left(&world.http, world.products[0].address, "aaa").await, 9);
    world.end().await;
}

#[tokio::test]
async fn without_a_product_it_says_when_to_try_again() {
    let world = World::new(0).await;
    let response = world.http.post(world.order.url("/purchase/aaa")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let body: Value = response.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("product"), "{body}");
    world.end().await;
}

#[tokio::test]
async fn without_discovery_it_serves_and_says_so() {
    let order = Process::start(ORDER, free_address().await).await;
    let http = http();
    assert_eq!(http.get(order.url("/health")).send().await.unwrap().status(), StatusCode::OK);
    let response = http.post(order.url("/purchase/aaa")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = response.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("discovery"), "{body}");
    assert!(order.terminate().await.success());
}

#[tokio::test]
async fn a_connection_that_breaks_is_followed_up_with_the_same_key() {
    let world = World::new(0).await;
    let fake = Fake::start(Manners::BreaksOnce).await;
    let instance = NewInstance::new("product", fake.address).unwrap();
    let _registration = world.discovery.register(instance).await.unwrap();
    available(&world.discovery, "product", 1).await;
    let (status, receipt) = world.buy("aaa").await;
    assert_eq!(status, StatusCode::OK, "{receipt}");
    let Seen { sales, undos, .. } = fake.seen();
    assert_eq!((sales.len(), undos.len()), (2, 0));
    assert_eq!(sales[0], sales[1], "the second call names the same sale");
    world.end().await;
}

#[tokio::test]
async fn an_instance_that_goes_silent_is_passed_over_and_told_to_undo() {
    let mut world = World::new(0).await;
    let fake = Fake::start(Manners::NeverSells).await;
    let instance = NewInstance::new("product", fake.address).unwrap();
    let _registration = world.discovery.register(instance).await.unwrap();
    available(&world.discovery, "product", 1).await;
    world.products.push(Process::start(&product(), world.server.rpc_addr()).await);
    available(&world.discovery, "product", 2).await;
    let honest = world.products[0].address;
    // Lookups take turns, so one of two purchases meets the silent one first.
    for _ in 0..2 {
        let (status, receipt) = world.buy("aaa").await;
        assert_eq!((status, seller(&receipt)), (StatusCode::OK, honest), "{receipt}");
    }
    assert_eq!(left(&world.http, honest, "aaa").await, 8);
    eventually("the undo", async || !fake.seen().undos.is_empty()).await;
    let Seen { sales, undos, .. } = fake.seen();
    assert!(undos.iter().all(|key| sales.contains(key)), "{undos:?} undoes {sales:?}");
    world.end().await;
}

#[tokio::test]
async fn an_instance_that_answers_nonsense_is_passed_over() {
    let mut world = World::new(0).await;
    let fake = Fake::start(Manners::SellsNonsense).await;
    let instance = NewInstance::new("product", fake.address).unwrap();
    let _registration = world.discovery.register(instance).await.unwrap();
    available(&world.discovery, "product", 1).await;
    world.products.push(Process::start_with(&product(), world.server.rpc_addr(), &["--stock", "1000"]).await);
    available(&world.discovery, "product", 2).await;
    let honest = world.products[0].address;
    for _ in 0..60 {
        let (status, receipt) = world.buy("aaa").await;
        assert_eq!((status, seller(&receipt)), (StatusCode::OK, honest), "{receipt}");
    }
    // Five in a row, and one each time to see whether it is back; not every other purchase.
    let Seen { sales, .. } = fake.seen();
    assert!((1..=12).contains(&sales.len()), "asked {} times", sales.len());
    eventually("every sale that made no sense is undone", async || fake.seen().undos.len() >= sales.len()).await;
    world.end().await;
}

#[tokio::test]
async fn the_trace_of_a_purchase_goes_on_to_the_product() {
    let world = World::new(0).await;
    let fake = Fake::start(Manners::Behaves).await;
    let _registration = world.discovery.register(NewInstance::new("product", fake.address).unwrap()).await.unwrap();
    available(&world.discovery, "product", 1).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let buy = || world.http.post(world.order.url("/purchase/aaa"));
    assert_eq!(buy().header("traceparent", trace).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(buy().send().await.unwrap().status(), StatusCode::OK);
    let Seen { traces, .. } = fake.seen();
    assert!(traces[0].starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{traces:?}");
    assert_eq!(traces[1], "", "and each purchase has its own");
    world.end().await;
}
