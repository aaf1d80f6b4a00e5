//! Servers on one Redis: what operators ask of one holds on the other, and nobody is dropped by Redis whom servers remember.

use std::time::Duration;

use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Redis, database};
use crate::support::{Healthy, Raw, SOON, config};

/// Registers until the answer is right.
async fn registers_until(raw: &mut Raw, registration: Value, right: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let answer = raw.register(registration.clone()).await;
            if right(&answer) {
                return answer;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, asked).await.expect("never came true")
}

#[tokio::test]
async fn a_block_on_one_server_holds_on_the_other_and_on_the_next() {
    let redis = Redis::start(false).await;
    let (one, other) = (redis.server().await, redis.server().await);
    let (mut operator, mut owner) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    owner.register(database(1)).await;
    operator.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["id"] == "db-1").await;
    operator.call(json!({"Dismiss": {"id": "db-1", "block": "1h"}})).await;
    // At once, whether or not that server has heard of it: it is told when it plans on something older.
    let refused =
        owner.register(json!({"name": "db", "id": "db-1", "address": "10.0.0.7:9", "check": {"kind": "none"}})).await;
    assert!(refused["Err"]["Blocked"]["reason"].as_str().is_some_and(|why| why.contains("blocked until")), "{refused}");
    assert_eq!(redis.cli(&["PTTL", "roundsman:{default}:evicted:db:db-1"]).trim(), "-1", "servers end it");
    one.stop().await;
    other.stop().await;
    let next = redis.server().await;
    let mut raw = Raw::connect_today(&next).await;
    assert!(raw.register(database(1)).await["Err"]["Blocked"].is_object());
    raw.call(json!({"Dismiss": {"id": "db-1", "block": "0s"}})).await;
    assert_eq!(raw.register(database(1)).await["Ok"]["outcome"], "created");
    next.stop().await;
}

#[tokio::test]
async fn a_drain_by_an_operator_holds_whatever_registers_at_the_other_server() {
    let redis = Redis::start(false).await;
    let (one, other) = (redis.server().await, redis.server().await);
    let (mut operator, mut owner) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    owner.register(database(1)).await;
    operator.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["id"] == "db-1").await;
    operator.call(json!({"Drain": {"id": "db-1", "on": true}})).await;
    owner.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["status"] == "draining").await;
    owner.call(json!({"Drain": {"id": "db-1", "on": false}})).await;
    owner.register(json!({"name": "db", "id": "db-1", "address": "10.0.0.7:9", "check": {"kind": "none"}})).await;
    operator.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["address"] == "10.0.0.7:9").await;
    for raw in [&mut operator, &mut owner] {
        assert_eq!(raw.call(Raw::list("db")).await["Ok"]["instances"][0]["status"], "draining");
    }
    let fields = redis.hash("roundsman:{default}:instance:db:db-1");
    assert_eq!((&*fields["draining"], &*fields["held"]), ("true", "true"));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn changes_in_part_at_two_servers_all_hold() {
    let redis = Redis::start(false).await;
    let (one, other) = (redis.server().await, redis.server().await);
    let (mut here, mut there) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    here.register(database(1)).await;
    there.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["id"] == "db-1").await;
    for n in 0..10 {
        for (raw, side) in [(&mut here, "here"), (&mut there, "there")] {
            raw.begin(json!({"Update": {"id": "db-1", "patch": {"meta": {(format!("{side}-{n}")): "1"}}}})).await;
        }
    }
    for _ in 0..10 {
        for raw in [&mut here, &mut there] {
            let answer = raw.receive().await.unwrap();
            assert_eq!(answer["message"]["Ok"]["Update"]["Ok"]["outcome"], "updated", "{answer}");
        }
    }
    for raw in [&mut here, &mut there] {
        let all =
            |answer: &Value| answer["Ok"]["instances"][0]["meta"].as_object().is_some_and(|meta| meta.len() == 20);
        raw.until(Raw::list("db"), all).await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn of_two_that_repeat_their_registrations_at_two_servers_one_stays() {
    let redis = Redis::start(false).await;
    let (one, other) = (redis.server().await, redis.server().await);
    let (mut here, mut there) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    let at = |id: &str| json!({"name": "db", "id": id, "address": "10.0.0.7:1", "check": {"kind": "none"}});
    let again = |id: &str| {
        let mut registration = at(id);
        registration["again"] = json!(true);
        registration
    };
    here.register(at("a")).await;
    there.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["id"] == "a").await;
    there.register(at("b")).await;
    let refused = registers_until(&mut here, again("a"), |answer| answer.get("Err").is_some()).await;
    assert_eq!(refused["Err"]["Replaced"], json!({"id": "a", "by": "b"}));
    let listed = there.call(Raw::list("db")).await;
    let ids: Vec<&Value> = listed["Ok"]["instances"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["b"]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_block_that_was_deleted_by_hand_is_written_back() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect_today(&server).await;
    raw.register(database(1)).await;
    raw.call(json!({"Dismiss": {"id": "db-1", "block": "1h"}})).await;
    let key = "roundsman:{default}:evicted:db:db-1";
    assert_eq!(redis.cli(&["DEL", key]).trim(), "1");
    redis.until(&["EXISTS", key], |answer| answer.trim() == "1").await;
    server.stop().await;
    let next = redis.server().await;
    let mut raw = Raw::connect_today(&next).await;
    assert!(raw.register(database(1)).await["Err"]["Blocked"].is_object());
    next.stop().await;
}

/// Its renewals reach one of the servers alone.
#[tokio::test]
async fn one_that_calls_in_at_one_server_passes_at_both() {
    let redis = Redis::start(false).await;
    let one = redis.server().await;
    // Or else the other one would miss it much later.
    let probation = Duration::from_secs(1);
    let soon = config(&format!("redis://127.0.0.1:{}/0", redis.port));
    let other = Server::start(Config { probation, ..soon }).await.unwrap();
    let (mut here, mut there) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    let check = json!({"kind": "ttl", "ttl": "1s"});
    let new = json!({"name": "db", "id": "db-1", "address": "10.0.0.7:1", "check": check, "forget_after": "1h"});
    here.register(new).await;
    there.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["id"] == "db-1").await;
    let was = |status: &'static str| {
        move |listed: &Value| {
            let history = listed["Ok"]["instances"][0]["history"].as_array();
            history.is_some_and(|flips| flips.iter().any(|flip| flip["status"] == status))
        }
    };
    let calling_in = async {
        while !was("suspect")(&here.call(Raw::list("db")).await) {
            let called = here.call(json!({"Renew": {"id": "db-1"}})).await;
            assert!(called.get("Err").is_none(), "{called}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, calling_in).await.expect("the other server never asks for it");
    for raw in [&mut here, &mut there] {
        raw.until(Raw::list("db"), |answer| answer["Ok"]["instances"][0]["status"] == "passing").await;
        let listed = raw.call(Raw::list("db")).await;
        assert!(!was("evicted")(&listed), "{listed}");
    }
    one.stop().await;
    other.stop().await;
}

/// One of the servers may not visit it, as behind a firewall. The other one may, and what it sees holds.
#[tokio::test]
async fn one_that_a_server_cannot_reach_stays_while_another_one_does() {
    let redis = Redis::start(false).await;
    let one = redis.server().await;
    let (start_deadline, probation) = (Duration::from_secs(1), Duration::from_millis(300));
    let allow_targets = vec!["10.0.0.0/8".parse().unwrap()];
    let narrow = config(&format!("redis://127.0.0.1:{}/0", redis.port));
    let other = Server::start(Config { start_deadline, probation, allow_targets, ..narrow }).await.unwrap();
    let (mut here, mut there) = (Raw::connect_today(&one).await, Raw::connect_today(&other).await);
    let product = Healthy::start().await;
    here.register(json!({"name": "product", "id": "p-1", "address": product.addr.to_string()})).await;
    // It evicts it, and means to forget it, time and again.
    let evictions = |answer: &Value| answer["Ok"]["rounds"]["evictions"].as_u64().is_some_and(|count| count >= 3);
    there.until(json!({"Status": {}}), evictions).await;
    other.stop().await;
    // Whatever was its last word.
    let listed = here.until(Raw::list("product"), |answer| answer["Ok"]["instances"][0]["status"] == "passing").await;
    let first = &listed["Ok"]["instances"][0]["history"][0];
    assert_eq!(first["status"], "starting", "it was never forgotten, and is the one that registered: {listed}");
    one.stop().await;
}
