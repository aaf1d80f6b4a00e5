//! What a restart keeps, and what it does not do in haste.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use roundsman_discovery::{Config, Server};
use roundsman_protocol::{Namespace, Registration, Timestamp};
use roundsman_registry::{Change, Key, Record};
use roundsman_store::StoreUrl;
use serde_json::json;

use crate::support::{Healthy, Raw, config};

#[tokio::test]
async fn registrations_drains_and_reasons_survive() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let product = Healthy::start().await;
    let server = Server::start(config(&store)).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    raw.register(json!({"name": "product", "id": "p-1", "address": product.addr.to_string()})).await;
    raw.register(json!({"name": "db", "id": "db-1", "address": "10.0.0.7:1", "check": {"kind": "none"}})).await;
    raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "passing").await;
    raw.call(json!({"Drain": {"id": "db-1", "on": true}})).await;
    server.stop().await;

    let server = Server::start(config(&store)).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    assert_eq!(raw.get("product").await["Ok"]["id"], "p-1", "handed out at once");
    let listed = raw.call(Raw::list("db")).await;
    assert_eq!(listed["Ok"][0]["status"], "draining");
    assert!(listed["Ok"][0]["history"].as_array().unwrap().len() >= 2, "{listed}");
    server.stop().await;
}

/// One instance refuses at once, another never answers. The first is evicted while the second is still being waited for.
#[tokio::test]
async fn one_that_is_refused_does_not_wait_for_one_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let slow = Config { timeout: Duration::from_secs(2), ..config(&store) };
    let server = Server::start(slow.clone()).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let (dies, hangs) = (Healthy::start().await, Healthy::start().await);
    let (dead, hanging): (SocketAddr, SocketAddr) = (dies.addr, hangs.addr);
    raw.register(json!({"name": "dies", "address": dead.to_string()})).await;
    raw.register(json!({"name": "hangs", "address": hanging.to_string()})).await;
    for service in ["dies", "hangs"] {
        raw.until(Raw::list(service), |answer| answer["Ok"][0]["status"] == "passing").await;
    }
    server.stop().await;
    dies.kill().await;
    hangs.kill().await;
    let silent = tokio::net::TcpListener::bind(hanging).await.unwrap();

    let server = Server::start(slow).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let evicted = |answer: &serde_json::Value| answer["Ok"][0]["status"] == "evicted";
    raw.until(Raw::list("dies"), evicted).await;
    raw.until(Raw::list("hangs"), evicted).await;
    let status = raw.call(json!({"Status": {}})).await;
    assert_eq!(status["Ok"]["rounds"]["unvisited"], 0, "{status}");
    let newest_first = status["Ok"]["recent"].as_array().unwrap();
    let place = |addr: SocketAddr, to: &str| {
        let is = |flip: &serde_json::Value| flip["address"] == addr.to_string() && flip["flip"]["status"] == to;
        newest_first.iter().position(is).unwrap_or_else(|| panic!("{addr} {to}: {status}"))
    };
    assert!(place(dead, "evicted") > place(hanging, "suspect"), "{status}");
    drop(silent);
    server.stop().await;
}

/// Two servers were asked at the same moment, and the store has both. The later one stays, in whatever order they are read, and
/// nobody goes on visiting the other.
#[tokio::test]
async fn of_two_stored_at_one_address_the_later_one_stays_and_the_other_is_not_visited() {
    for (earlier, later) in [("a", "b"), ("b", "a")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roundsman.db");
        let product = Healthy::start().await;
        let stored = |id: &str, version| {
            let registration = Registration::new("product".parse().unwrap(), product.addr.to_string().parse().unwrap());
            let key = Key { namespace: Namespace::default(), id: id.parse().unwrap() };
            let record = Record::registered(&key, &registration, version, Timestamp::from_millis(version));
            Change::Asked { record: Arc::new(record), expected: 0 }
        };
        // As rows lie in the file: first that of `a`.
        let mut changes = vec![stored(earlier, 1_000), stored(later, 2_000)];
        changes.sort_by_key(Change::key);
        let store = StoreUrl::sqlite(&file).open(Duration::from_secs(60), "an earlier one");
        store.load().await.unwrap();
        store.commit(&changes, &[]).await.unwrap();
        drop(store);

        let url = format!("sqlite:{}", file.display());
        let server = Server::start(config(&url)).await.unwrap();
        let mut raw = Raw::connect(&server).await;
        let listed = raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "passing").await;
        assert_eq!((listed["Ok"].as_array().unwrap().len(), &listed["Ok"][0]["id"]), (1, &json!(later)));
        assert_eq!(raw.call(json!({"Status": {}})).await["Ok"]["rounds"]["targets"], 1);
        server.stop().await;
        let store = StoreUrl::sqlite(&file).open(Duration::from_secs(60), "a later one");
        let left: Vec<_> =
            store.load().await.unwrap().records.iter().map(|record| record.key().id.to_string()).collect();
        assert_eq!(left, [later], "the other one left the store as well");
    }
}
