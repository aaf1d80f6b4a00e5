//! What a restart keeps, and what it does not do in haste.

use std::{net::SocketAddr, time::Duration};

use roundsman_discovery::{Config, Server};
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
