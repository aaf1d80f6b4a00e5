//! Three products restarted one after the other under a steady load of purchases: nothing fails, nothing is lost, nothing
//! is sold twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::StatusCode;
use roundsman_testing::{Process, available, eventually};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{World, product};

/// So many on each shelf that none runs empty.
const STOCK: [&str; 2] = ["--stock", "1000000"];

/// How many buy at the same time.
const BUYERS: usize = 4;

/// How many purchases are waited for between two restarts.
const BETWEEN: usize = 40;

/// Buyers who buy one after the other until they are stopped.
struct Load {
    buyers: JoinSet<Vec<(StatusCode, Value)>>,
    bought: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Load {
    fn start(world: &World) -> Self {
        let (bought, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            let (http, url) = (world.http.clone(), world.order.url("/purchase/aaa"));
            let (bought, stop) = (Arc::clone(&bought), stop.clone());
            buyers.spawn(async move {
                let mut answers = Vec::new();
                while !stop.is_cancelled() {
                    let response = http.post(&url).send().await.unwrap();
                    answers.push((response.status(), response.json().await.unwrap()));
                    bought.fetch_add(1, Ordering::Relaxed);
                    // Steady, and no flood: both sides share this machine.
                    sleep(Duration::from_millis(2)).await;
                }
                answers
            });
        }
        Self { buyers, bought, stop }
    }

    /// Waits for some more purchases.
    async fn go_on(&self) {
        let enough = self.bought.load(Ordering::Relaxed) + BETWEEN;
        eventually("more purchases", async || self.bought.load(Ordering::Relaxed) >= enough).await;
    }

    async fn end(self) -> Vec<(StatusCode, Value)> {
        self.stop.cancel();
        self.buyers.join_all().await.concat()
    }
}

/// What a product process says in its log: its instance's id, and the keys of what it sold and was not made to undo.
fn sold(log: &[Value]) -> (String, BTreeSet<String>) {
    let (mut id, mut keys) = (String::new(), BTreeSet::new());
    for fields in log.iter().map(|line| &line["fields"]) {
        let text = |field: &str| fields[field].as_str().unwrap_or_default().to_owned();
        match text("message").as_str() {
            "serving" => id = text("id"),
            "sold" => drop(keys.insert(text("key"))),
            "sale undone" => drop(keys.remove(&text("key"))),
            _ => {}
        }
    }
    (id, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_loses_and_doubles_no_purchase() {
    let mut world = World::new(0).await;
    let server = world.server.rpc_addr();
    for _ in 0..3 {
        world.products.push(Process::start_with(&product(), server, &STOCK).await);
    }
    available(&world.discovery, "product", 3).await;
    let load = Load::start(&world);
    let mut logs = Vec::new();
    for _ in 0..3 {
        load.go_on().await;
        let leaving = world.products.remove(0);
        let listen = leaving.address.to_string();
        let (status, log) = leaving.terminate_and_read().await;
        assert!(status.success());
        logs.push(log);
        let flags = [&["--listen", &listen], &STOCK[..]].concat();
        world.products.push(Process::start_with(&product(), server, &flags).await);
        available(&world.discovery, "product", 3).await;
    }
    load.go_on().await;
    let answers = load.end().await;
    for product in world.products.drain(..) {
        logs.push(product.terminate_and_read().await.1);
    }

    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != StatusCode::OK).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), answers.len());
    let mut receipts = BTreeMap::<String, usize>::new();
    for (_, receipt) in &answers {
        *receipts.entry(receipt["sold_by"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let sales: BTreeMap<_, _> = logs.iter().map(|log| sold(log)).collect();
    let sold: BTreeMap<_, _> = sales.iter().map(|(id, keys)| (id.clone(), keys.len())).collect();
    assert_eq!(receipts, sold, "each sold exactly what there are receipts for");
    assert_eq!(sold.len(), 6, "in each of its lives each sold something: {sold:?}");
    let keys: BTreeSet<_> = sales.values().flatten().collect();
    assert_eq!(keys.len(), answers.len(), "and no purchase was sold by two");
    world.end().await;
}
