//! Deaths, returns and the reasons for them, seen through the doors.

use std::time::Duration;

use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};

use crate::support::{Healthy, Raw, SOON, config, metric_reaches, page, server};

fn passing(answer: &Value) -> bool {
    answer["Ok"][0]["status"] == "passing"
}

fn evicted(answer: &Value) -> bool {
    answer["Ok"][0]["status"] == "evicted"
}

/// With an hour between rounds nothing but the closing connection can have told.
#[tokio::test]
async fn a_death_is_seen_and_not_polled_and_the_return_needs_no_registration() {
    let server = Server::start(Config { interval: Duration::from_secs(3_600), timeout: SOON, ..config("memory:") })
        .await
        .unwrap();
    let mut raw = Raw::connect(&server).await;
    let product = Healthy::start().await;
    let addr = product.addr;
    raw.register(json!({"name": "product", "address": addr.to_string()})).await;
    let before = raw.until(Raw::list("product"), passing).await;
    let cursor = raw.call(json!({"Watch": {"query": {}, "after": null, "wait": "0ms"}})).await["Ok"]["cursor"].clone();
    let watch = json!({"Watch": {"query": {"services": ["product"]}, "after": cursor, "wait": "60s"}});
    product.kill().await;
    let update = raw.call(watch).await;
    assert_eq!(update["Ok"]["removed"][0]["reason"], "GET /health: connection refused", "{update}");
    assert!(raw.get("product").await["Err"].get("NonePassing").is_some());
    let _back = Healthy::at(addr).await;
    let after = raw.until(Raw::list("product"), passing).await;
    assert_eq!(before["Ok"][0]["id"], after["Ok"][0]["id"]);
    let history: Vec<&str> =
        after["Ok"][0]["history"].as_array().unwrap().iter().map(|flip| flip["status"].as_str().unwrap()).collect();
    assert_eq!(history, ["starting", "passing", "evicted", "passing"]);
    metric_reaches(&server, "roundsman_evictions_total{reason=\"refused\"}", 1.0).await;
    metric_reaches(&server, "roundsman_reinstatements_total", 1.0).await;
    let status: Value = serde_json::from_str(&page(&server, "/api/v1/status").await.1).unwrap();
    assert_eq!(status["recent"][0]["flip"]["status"], "passing", "{status}");
    server.stop().await;
}

#[tokio::test]
async fn a_broken_session_triggers_a_visit() {
    let server = Server::start(Config { interval: Duration::from_secs(3_600), timeout: SOON, ..config("memory:") })
        .await
        .unwrap();
    let mut observer = Raw::connect(&server).await;
    let mut session = Raw::connect(&server).await;
    // A tcp check keeps no connection, so only the session can tell.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    session.register(json!({"name": "product", "address": address, "check": {"kind": "tcp"}})).await;
    observer.until(Raw::list("product"), passing).await;
    drop(listener);
    drop(session);
    let gone = observer.until(Raw::list("product"), evicted).await;
    assert_eq!(gone["Ok"][0]["reason"], "tcp: connection refused");
    server.stop().await;
}

#[tokio::test]
async fn a_report_triggers_a_visit_and_evicts_nobody_by_itself() {
    let server = Server::start(Config { interval: Duration::from_secs(3_600), timeout: SOON, ..config("memory:") })
        .await
        .unwrap();
    let mut raw = Raw::connect(&server).await;
    let product = Healthy::start().await;
    raw.register(json!({"name": "product", "id": "p-1", "address": product.addr.to_string()})).await;
    raw.until(Raw::list("product"), passing).await;
    let visits = |status: &Value| status["rounds"]["visits"].as_u64().unwrap();
    let before: Value = serde_json::from_str(&page(&server, "/api/v1/status").await.1).unwrap();
    assert_eq!(raw.call(json!({"Report": {"id": "p-1", "trouble": {"status": 500}}})).await, json!({"Ok": null}));
    let visited = async {
        loop {
            let now: Value = serde_json::from_str(&page(&server, "/api/v1/status").await.1).unwrap();
            if visits(&now) > visits(&before) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, visited).await.unwrap();
    assert_eq!(raw.get("product").await["Ok"]["status"], "passing");
    server.stop().await;
}

#[tokio::test]
async fn a_ttl_instance_lives_for_as_long_as_it_calls_in() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    let check = json!({"kind": "ttl", "ttl": "1s"});
    raw.register(json!({"name": "batch", "id": "b-1", "address": "10.0.0.7:1", "check": check})).await;
    // Time stands still but for these steps, so that no renewal is late: while a blocking task runs, the runtime does not
    // move it by itself.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = tokio::task::spawn_blocking(move || held.recv());
    tokio::time::pause();
    for step in 1..=60 {
        tokio::time::advance(Duration::from_millis(50)).await;
        if step % 5 == 0 {
            assert_eq!(raw.call(json!({"Renew": {"id": "b-1"}})).await, json!({"Ok": null}));
        }
        assert_eq!(raw.get("batch").await["Ok"]["id"], "b-1");
    }
    tokio::time::resume();
    drop(hold);
    assert!(held.await.unwrap().is_err());
    let gone = raw.until(Raw::list("batch"), evicted).await;
    assert!(gone["Ok"][0]["reason"].as_str().unwrap().contains("no renewal within 1s"), "{gone}");
    assert_eq!(raw.call(json!({"Renew": {"id": "b-1"}})).await, json!({"Err": {"NotRegistered": {"id": "b-1"}}}));
    server.stop().await;
}
