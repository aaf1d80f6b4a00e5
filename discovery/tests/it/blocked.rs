//! Ids that an operator keeps out, drains that outlast registrations, and what a server knows of who keeps an instance.

use std::time::Duration;

use roundsman_discovery::Server;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{Raw, config};

fn database(id: &str, port: u16) -> Value {
    json!({"name": "db", "id": id, "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}})
}

fn instances(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = answer["Ok"]["instances"].as_array().unwrap_or_else(|| panic!("{answer}"));
    listed.iter().map(|instance| (text(&instance["id"]), text(&instance["status"]))).collect()
}

#[tokio::test]
async fn a_block_survives_a_restart_and_says_until_when_and_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let server = Server::start(config(&store)).await.unwrap();
    let (mut owner, mut operator) = (Raw::connect_today(&server).await, Raw::connect_today(&server).await);
    let registered = owner.register(database("db-1", 1)).await;
    assert_eq!(registered["Ok"]["outcome"], "created", "{registered}");
    let plain = operator.call(json!({"Dismiss": {"id": "db-1"}})).await;
    let kept_by = plain["Ok"]["kept_by"]["address"].as_str();
    assert!(kept_by.is_some_and(|address| address.starts_with("127.0.0.1:")), "{plain}");
    owner.register(database("db-1", 1)).await;
    let blocked = operator.call(json!({"Dismiss": {"id": "db-1", "block": "1h"}})).await;
    assert!(blocked["Ok"]["blocked_until"].is_string(), "{blocked}");
    let refused = owner.register(database("db-1", 1)).await;
    let reason = refused["Err"]["Blocked"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("blocked until 2") && reason.contains("Z by 127.0.0.1:"), "{refused}");
    // Somebody of an earlier release is told as well as it can be, and asks again later.
    let old = Raw::connect(&server).await.register(database("db-1", 1)).await;
    let unavailable = old["Err"]["StoreUnavailable"]["reason"].as_str();
    assert!(unavailable.is_some_and(|reason| reason.contains("blocked until ")), "{old}");
    server.stop().await;

    let server = Server::start(config(&store)).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    assert_eq!(raw.register(database("db-1", 1)).await["Err"]["Blocked"]["reason"], reason);
    assert_eq!(raw.call(json!({"Renew": {"id": "db-1"}})).await["Err"]["NotRegistered"]["id"], "db-1");
    let listed = raw.call(Raw::list("db")).await;
    assert_eq!(instances(&listed), [("db-1".to_owned(), "evicted".to_owned())]);
    let lifted = raw.call(json!({"Dismiss": {"id": "db-1", "block": "0s"}})).await;
    assert_eq!(lifted["Ok"]["blocked_until"], Value::Null, "{lifted}");
    assert_eq!(raw.register(database("db-1", 1)).await["Ok"]["outcome"], "created");
    let history = raw.call(json!({"History": {"query": {"instance": "db-1"}}})).await;
    let reasons: Vec<&str> =
        history["Ok"]["events"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert!(reasons[1] == "let in again" && reasons[2].starts_with("deregistered, and blocked until "), "{reasons:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_block_ends_by_itself_with_an_event() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.register(database("db-1", 1)).await;
    raw.call(json!({"Dismiss": {"id": "db-1", "block": "100ms"}})).await;
    raw.until(Raw::list("db"), |answer| answer.get("Err").is_some() || instances(answer).is_empty()).await;
    let history = json!({"History": {"query": {"instance": "db-1", "limit": 1}}});
    raw.until(history, |page| page["Ok"]["events"][0]["reason"] == "its block is over").await;
    assert_eq!(raw.register(database("db-1", 1)).await["Ok"]["outcome"], "created");
    server.stop().await;
}

#[tokio::test]
async fn only_its_own_connection_is_the_owner_of_an_instance() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let server = Server::start(config(&store)).await.unwrap();
    let (mut owner, mut operator) = (Raw::connect_today(&server).await, Raw::connect_today(&server).await);
    owner.register(database("db-1", 1)).await;
    let drain = |on: bool| json!({"Drain": {"id": "db-1", "on": on}});
    operator.call(drain(true)).await;
    owner.call(drain(false)).await;
    owner.register(database("db-1", 2)).await;
    assert_eq!(instances(&owner.call(Raw::list("db")).await)[0].1, "draining");
    server.stop().await;
    let server = Server::start(config(&store)).await.unwrap();
    let mut owner = Raw::connect_today(&server).await;
    owner.register(database("db-1", 3)).await;
    assert_eq!(instances(&owner.call(Raw::list("db")).await)[0].1, "draining", "a restart forgets nothing");
    let mut operator = Raw::connect_today(&server).await;
    operator.call(drain(false)).await;
    assert_eq!(instances(&owner.call(Raw::list("db")).await)[0].1, "passing");
    // What its owner asked for ends with the process.
    owner.call(drain(true)).await;
    owner.register(database("db-1", 4)).await;
    assert_eq!(instances(&owner.call(Raw::list("db")).await)[0].1, "passing");
    server.stop().await;
}

#[tokio::test]
async fn who_was_replaced_is_named_and_takes_nothing_back() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.register(database("a", 1)).await;
    let answer = raw.register(database("b", 1)).await;
    assert_eq!(answer["Ok"]["replaced"], json!(["a"]), "{answer}");
    let mut again = database("a", 1);
    again["again"] = json!(true);
    let refused = raw.register(again.clone()).await;
    assert_eq!(refused["Err"]["Replaced"], json!({"id": "a", "by": "b"}), "{refused}");
    let told = raw.call(json!({"History": {"query": {"service": "db"}}})).await;
    let events = told["Ok"]["events"].as_array().unwrap();
    let reasons: Vec<&str> = events.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    let expected =
        ["registered at 10.0.0.7:1, replaced a", "replaced by b at the same address", "registered at 10.0.0.7:1"];
    assert_eq!(reasons, expected);
    // The same place under another name for it.
    let local = |id: &str, host: &str| json!({"name": "web", "id": id, "address": format!("{host}:7070"), "check": {"kind": "none"}});
    raw.register(local("c", "127.0.0.1")).await;
    let named = raw.register(local("d", "localhost")).await;
    assert_eq!(named["Ok"]["replaced"], json!(["c"]), "{named}");
    let mut again = local("c", "127.0.0.1");
    again["again"] = json!(true);
    assert_eq!(raw.register(again).await["Err"]["Replaced"]["by"], "d");
    server.stop().await;
}

#[tokio::test]
async fn changes_in_part_that_come_at_once_all_hold() {
    let server = Server::start(config("memory:")).await.unwrap();
    let (mut raw, mut other) = (Raw::connect_today(&server).await, Raw::connect_today(&server).await);
    raw.register(database("db-1", 1)).await;
    let change = |n: usize| json!({"Update": {"id": "db-1", "patch": {"meta": {(format!("k{n}")): "1"}}}});
    for n in 0..30 {
        raw.begin(change(2 * n)).await;
        other.begin(change(2 * n + 1)).await;
    }
    for _ in 0..30 {
        for raw in [&mut raw, &mut other] {
            let answer = raw.receive().await.unwrap();
            assert_eq!(answer["message"]["Ok"]["Update"]["Ok"]["outcome"], "updated", "{answer}");
        }
    }
    let listed = raw.call(Raw::list("db")).await;
    assert_eq!(listed["Ok"]["instances"][0]["meta"].as_object().unwrap().len(), 60);
    let gone = raw.call(json!({"Update": {"id": "nobody", "patch": {"weight": 2}}})).await;
    assert_eq!(gone["Err"]["NotRegistered"]["id"], "nobody");
    let wrong = raw.call(json!({"Update": {"id": "db-1", "patch": {"weigth": 2}}})).await;
    assert!(wrong.to_string().contains("weigth"), "{wrong}");
    let longest = Duration::from_secs(365 * 24 * 3_600).as_secs() + 1;
    let absurd = raw.call(json!({"Dismiss": {"id": "db-1", "block": format!("{longest}s")}})).await;
    assert_eq!(absurd["Err"]["Invalid"]["field"], "block", "{absurd}");
    server.stop().await;
}

#[tokio::test]
async fn an_owner_that_does_not_wait_for_the_answer_is_the_owner_all_the_same() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    let calls =
        [json!({"Register": {"registration": database("db-1", 1)}}), json!({"Drain": {"id": "db-1", "on": true}})];
    // In one piece, so that the second one is read before the first is answered.
    let mut frames = Vec::new();
    for (id, call) in calls.into_iter().enumerate() {
        let frame = json!({"Request": {"id": id, "message": call}}).to_string();
        frames.extend((frame.len() as u32).to_be_bytes());
        frames.extend(frame.as_bytes());
    }
    raw.stream.write_all(&frames).await.unwrap();
    for _ in 0..2 {
        let answer = raw.receive().await.unwrap();
        assert!(!answer.to_string().contains("Err"), "{answer}");
    }
    assert_eq!(instances(&raw.call(Raw::list("db")).await)[0].1, "draining");
    raw.call(json!({"Drain": {"id": "db-1", "on": false}})).await;
    assert_eq!(instances(&raw.call(Raw::list("db")).await)[0].1, "passing", "it drained itself");
    server.stop().await;
}

#[tokio::test]
async fn ending_a_block_that_is_not_there_takes_nobody_out_and_an_update_says_what_it_changed() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.register(database("db-1", 1)).await;
    let refused = raw.call(json!({"Dismiss": {"id": "db-1", "block": "0s"}})).await;
    assert!(refused["Err"]["Invalid"]["rule"].as_str().is_some_and(|rule| rule.contains("not kept out")), "{refused}");
    assert_eq!(instances(&raw.call(Raw::list("db")).await)[0].1, "passing");
    raw.call(json!({"Update": {"id": "db-1", "patch": {"weight": 7, "zone": "a"}}})).await;
    let mut again = database("db-1", 1);
    again["weight"] = json!(7);
    raw.register(again).await;
    let told = raw.call(json!({"History": {"query": {"instance": "db-1"}}})).await;
    let reasons: Vec<&str> =
        told["Ok"]["events"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[..2], ["updated: zone a → none", "updated: weight 1 → 7, zone none → a"]);
    server.stop().await;
}
