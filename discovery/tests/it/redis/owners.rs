//! Servers on one Redis that change the same instances: each request holds, whoever was faster.

use serde_json::{Value, json};

use super::{Redis, database};
use crate::support::{Raw, metric_reaches};

/// What another server did that this one has not heard of: the hash is later, and no change tells of it.
fn behind_its_back(redis: &Redis, id: &str, fields: &[&str]) {
    let key = format!("roundsman:{{default}}:instance:db:{id}");
    let version: u64 = redis.hash(&key)["asked"].parse().unwrap();
    let later = (version + 1).to_string();
    redis.cli(&[&["HSET", key.as_str(), "asked", later.as_str()], fields].concat());
}

#[tokio::test]
async fn a_request_that_was_overtaken_is_planned_anew_and_undoes_nothing() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    for port in 1..=3 {
        raw.register(database(port)).await;
    }
    behind_its_back(&redis, "db-1", &["draining", "true"]);
    behind_its_back(&redis, "db-2", &["weight", "7"]);
    // An update here, on top of a drain there.
    let updated =
        json!({"name": "db", "id": "db-1", "address": "10.0.0.7:1", "check": {"kind": "none"}, "tags": ["new"]});
    let answer = raw.call(json!({"Register": {"registration": updated}})).await;
    assert_eq!(answer["Ok"]["outcome"], "updated", "{answer}");
    let fields = redis.hash("roundsman:{default}:instance:db:db-1");
    assert_eq!((&*fields["draining"], &*fields["tags"]), ("true", "[\"new\"]"));
    // A drain here, on top of an update there.
    assert_eq!(raw.call(json!({"Drain": {"id": "db-2", "on": true}})).await["Ok"], Value::Null);
    let fields = redis.hash("roundsman:{default}:instance:db:db-2");
    assert_eq!((&*fields["draining"], &*fields["weight"]), ("true", "7"));
    metric_reaches(&server, "roundsman_store_conflicts_total", 2.0).await;
    let listed = raw.call(Raw::list("db")).await;
    let status: Vec<_> =
        listed["Ok"].as_array().unwrap().iter().map(|i| (&i["id"], &i["status"], &i["weight"])).collect();
    assert!(status.contains(&(&json!("db-1"), &json!("draining"), &json!(1))), "{status:?}");
    assert!(status.contains(&(&json!("db-2"), &json!("draining"), &json!(7))), "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_another_server_removed_is_not_brought_back_by_a_request_that_did_not_know() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    raw.register(database(1)).await;
    let key = "roundsman:{default}:instance:db:db-1";
    let version: u64 = redis.hash(key)["asked"].parse().unwrap();
    redis.cli(&["ZADD", "roundsman:{default}:removed", &(version + 5).to_string(), "db-1"]);
    redis.cli(&["HDEL", "roundsman:{default}:instances", "db-1"]);
    redis.cli(&["DEL", key]);
    let answer = raw.call(json!({"Drain": {"id": "db-1", "on": true}})).await;
    assert_eq!(answer["Err"]["NotRegistered"]["id"], "db-1", "{answer}");
    assert_eq!(raw.get("db").await["Err"]["NoSuchService"]["service"], "db");
    // Whoever registers now is later than the removal.
    raw.register(database(1)).await;
    assert!(redis.hash(key)["asked"].parse::<u64>().unwrap() > version + 5);
    server.stop().await;
}
