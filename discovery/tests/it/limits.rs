//! Limits: over each of them there is a clear refusal, and memory stays bounded.

use roundsman_discovery::{Config, Server};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Raw, config, metric_reaches};

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::start(Config { max_connections: 2, ..config("memory:") }).await.unwrap();
    let (first, _second) = (Raw::connect(&server).await, Raw::connect(&server).await);
    let mut third = Raw::silent(&server).await;
    let refusal = third.receive().await.unwrap();
    assert!(refusal["error"].as_str().unwrap().contains("--max-connections (2)"), "{refusal}");
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"max-connections\"}", 1.0).await;
    drop(first);
    metric_reaches(&server, "roundsman_rpc_connections", 1.0).await;
    let connected = async {
        loop {
            let mut raw = Raw::silent(&server).await;
            raw.send(&json!({"roundsman": 1, "codec": "json"})).await;
            if raw.receive().await.is_some_and(|welcome| welcome["ok"] == true) {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::SOON, connected).await.expect("the place of the one that left is free");
    server.stop().await;
}

#[tokio::test]
async fn instances_watches_and_calls_in_flight_have_limits() {
    let limits = Config { max_instances: 1, max_watches: 1, max_in_flight: 2, ..config("memory:") };
    let server = Server::start(limits).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let registration =
        |port: u16| json!({"name": "db", "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}});
    raw.register(registration(1)).await;
    let refusal = raw.register(registration(2)).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-instances");

    let watch = |after| json!({"Watch": {"query": {"services": ["nobody"]}, "after": after, "wait": "60s"}});
    let cursor = raw.call(watch(json!(null))).await["Ok"]["cursor"].clone();
    raw.begin(watch(cursor.clone())).await;
    metric_reaches(&server, "roundsman_watches", 1.0).await;
    let refusal = raw.call(watch(cursor.clone())).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-watches");
    server.stop().await;

    let server = Server::start(Config { max_in_flight: 1, ..config("memory:") }).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let cursor = raw.call(watch(json!(null))).await["Ok"]["cursor"].clone();
    let waiting = raw.begin(watch(cursor.clone())).await;
    assert_eq!(raw.call(json!({"Services": {}})).await, json!({"Ok": []}), "a watch that waits occupies nobody");
    let refusal = raw.call(watch(cursor.clone())).await.to_string();
    assert!(refusal.contains("--max-in-flight (1)"), "{refusal}");
    raw.send(&json!({"Cancel": {"request_id": waiting}})).await;
    raw.begin(watch(cursor)).await;
    assert_eq!(raw.call(json!({"Services": {}})).await, json!({"Ok": []}), "a cancelled watch makes room");
    metric_reaches(&server, "roundsman_watches", 1.0).await;
    server.stop().await;
}

/// The client asks for megabytes and reads nothing: the server stops reading from it and goes on serving others.
#[tokio::test]
async fn a_client_that_never_reads_is_left_waiting() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut other = Raw::connect(&server).await;
    for port in 1..=200 {
        let meta = json!({"blob": "x".repeat(8_000)});
        other
            .register(
                json!({"name": "db", "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}, "meta": meta}),
            )
            .await;
    }
    let mut greedy = Raw::connect(&server).await;
    let request = json!({"Request": {"id": 1, "message": {"List": {"query": {"scope": "all"}}}}}).to_string();
    let mut frame = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(request.as_bytes());
    // 1.6 MB of answer each; whatever is not read stays in the client's own send buffer once the server stops reading.
    let stuffed = tokio::time::timeout(std::time::Duration::from_secs(3), async {
        for _ in 0..200_000 {
            greedy.stream.write_all(&frame).await.unwrap();
        }
    });
    assert!(stuffed.await.is_err(), "the server went on reading requests whose answers nobody reads");
    assert_eq!(other.call(json!({"Services": {}})).await["Ok"][0]["instances"], 200);
    let (_, status) = crate::support::page(&server, "/api/v1/status").await;
    assert!(status.contains("\"connections\":2"), "{status}");
    drop(greedy);
    server.stop().await;
}

fn database(port: u16) -> serde_json::Value {
    json!({"name": "db", "id": format!("db-{port}"), "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}})
}

#[tokio::test]
async fn no_namespace_and_no_connection_takes_every_instance() {
    let shares = Config { max_instances_per_namespace: 2, max_instances_per_connection: 1, ..config("memory:") };
    let server = Server::start(shares).await.unwrap();
    let (mut one, mut other) = (Raw::connect(&server).await, Raw::connect(&server).await);
    one.register(database(1)).await;
    let refusal = one.register(database(2)).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-instances-per-connection");
    assert_eq!(one.register(database(1)).await["Ok"]["outcome"], "unchanged", "its own may register again");
    other.register(database(2)).await;
    let mut third = Raw::connect(&server).await;
    let refusal = third.register(database(3)).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-instances-per-namespace");
    let mut tenant = Raw::connect_to(&server, "shop").await;
    assert_eq!(tenant.register(database(3)).await["Ok"]["outcome"], "created", "another tenant has its own share");
    // One that is gone, whoever took it out, counts no longer.
    other.call(json!({"Deregister": {"id": "db-1"}})).await;
    assert_eq!(one.register(database(4)).await["Ok"]["outcome"], "created");
    server.stop().await;
}

#[tokio::test]
async fn whoever_does_not_wait_for_the_answer_has_registered_all_the_same() {
    let server = Server::start(Config { max_instances_per_connection: 1, ..config("memory:") }).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    // In one piece, so that it is cancelled before it is done.
    let request = json!({"Request": {"id": 7, "message": {"Register": {"registration": database(1)}}}}).to_string();
    let cancel = json!({"Cancel": {"request_id": 7}}).to_string();
    let mut frames = Vec::new();
    for message in [request, cancel] {
        frames.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frames.extend_from_slice(message.as_bytes());
    }
    raw.stream.write_all(&frames).await.unwrap();
    let mut other = Raw::connect(&server).await;
    other.until(json!({"Get": {"service": "db"}}), |answer| answer["Ok"]["id"] == "db-1").await;
    let refusal = raw.register(database(2)).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-instances-per-connection");
    server.stop().await;
}

#[tokio::test]
async fn what_is_registered_takes_no_more_memory_than_it_may() {
    let server = Server::start(Config { max_memory: Some(32 << 20), ..config("memory:") }).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let mut refusal = json!(null);
    for port in 1..2_000 {
        let mut large = database(port);
        large["meta"] = json!({"filling": "x".repeat(16_000)});
        let answer = raw.register(large).await;
        if answer.get("Err").is_some() {
            refusal = answer;
            break;
        }
    }
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-memory");
    let mut tenant = Raw::connect_to(&server, "shop").await;
    let mut large = database(1);
    large["meta"] = json!({"filling": "x".repeat(16_000)});
    assert_eq!(tenant.register(large).await["Ok"]["outcome"], "created", "another tenant has its own share");
    assert_eq!(raw.get("db").await["Ok"]["name"], "db", "reads go on");
    assert_eq!(raw.call(json!({"Deregister": {"id": "db-1"}})).await, json!({"Ok": null}), "and so does leaving");
    server.stop().await;
}

#[tokio::test]
async fn watches_that_wait_take_no_more_memory_than_they_may() {
    let server = Server::start(Config { max_memory: Some(32 << 20), ..config("memory:") }).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let wide = |n: usize, after| {
        let names: Vec<String> = (0..1_024).map(|m| format!("wide-{n}-{m}")).collect();
        json!({"Watch": {"query": {"services": names}, "after": after, "wait": "60s"}})
    };
    let cursor = raw.call(wide(0, json!(null))).await["Ok"]["cursor"].clone();
    let mut refused = None;
    for n in 0..100 {
        raw.begin(wide(n, cursor.clone())).await;
        // Watches wait silently: what comes before the answer to this is a refusal.
        let services = raw.begin(json!({"Services": {}})).await;
        let answer = raw.receive().await.unwrap();
        if answer["request_id"] != services {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a refusal").to_string();
    assert!(refused.contains("--max-memory"), "{refused}");
    let status = Raw::connect(&server).await.call(json!({"Status": {}})).await;
    assert!(status["Ok"]["memory"]["refused"].as_u64() >= Some(1), "{status}");
    let mut tenant = Raw::connect_to(&server, "shop").await;
    let cursor = tenant.call(wide(0, json!(null))).await["Ok"]["cursor"].clone();
    tenant.begin(wide(0, cursor)).await;
    assert_eq!(tenant.call(json!({"Services": {}})).await, json!({"Ok": []}), "another tenant's watch waits");
    server.stop().await;
}
