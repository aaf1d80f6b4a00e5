//! Redis when it goes away, comes back, comes back empty, or is not what it should be.

use std::time::Duration;

use redis::AsyncTypedCommands;
use roundsman_store::{StoreError, StoreUrl};

use crate::{
    records::{
        assert_holds, commit_all, eventually, flipped, loaded, open, put, record, refill_all, saw, shared, unavailable,
        unusable,
    },
    redis_server::RedisServer,
};

#[tokio::test]
async fn a_redis_that_stops_and_starts_heals_without_a_refill() {
    let mut redis = RedisServer::durable().await;
    let store = redis.store();
    let (a, b) = (record("product", 1), record("product", 2));
    store.load().await.unwrap();
    store.commit(&[put(&a)], &[]).await.unwrap();
    redis.stop();
    for _ in 0..2 {
        let reason = unavailable(store.commit(&[put(&b)], &[]).await);
        assert!(["redis refuses connections", "the connection to redis broke"].contains(&&*reason), "{reason}");
    }
    unavailable(store.probe().await);
    unavailable(store.load().await);
    redis.restart().await;
    store.commit(&[put(&b)], &[]).await.unwrap();
    store.probe().await.unwrap();
    assert_holds(loaded(&store).await, &[&a, &b]);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_a_loss_and_is_refilled() {
    let mut redis = RedisServer::start().await;
    let store = redis.store();
    let (a, b) = (record("product", 1), record("product", 2));
    store.load().await.unwrap();
    store.commit(&[put(&a)], &[]).await.unwrap();
    redis.stop();
    unavailable(store.probe().await);
    redis.restart().await;
    assert!(matches!(store.commit(&[put(&b)], &[]).await, Err(StoreError::GenerationLost)));
    store.refill(&shared(&[a.clone(), b.clone()]), &[]).await.unwrap();
    assert_holds(loaded(&redis.store()).await, &[&a, &b]);
}

#[tokio::test]
async fn flushall_is_noticed_by_everything_and_refilled() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    let all: Vec<_> = (1..=1_200).map(|n| record("product", n)).collect();
    commit_all(&store, &all).await;
    redis.flush().await;
    assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
    assert!(matches!(store.commit(&[put(&all[0])], &[]).await, Err(StoreError::GenerationLost)));
    assert!(matches!(store.load().await, Err(StoreError::GenerationLost)));
    assert_eq!(redis.cli().await.keys("*").await.unwrap().len(), 0, "nothing was written into the empty store");
    refill_all(&store, &all).await;
    store.probe().await.unwrap();
    store.commit(&[put(&all[0])], &[]).await.unwrap();
    let all: Vec<_> = all.iter().collect();
    assert_holds(loaded(&store).await, &all);
    assert_holds(loaded(&redis.store()).await, &all);
}

#[tokio::test]
async fn a_store_without_any_record_survives_flushall_as_well() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.load().await.unwrap();
    redis.flush().await;
    store.probe().await.unwrap();
    let only = record("product", 1);
    store.commit(&[put(&only)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&only]);
}

/// A snapshot from before: the generation is the right one, the last acknowledged changes are missing.
#[tokio::test]
async fn a_restored_backup_is_a_loss_and_is_refilled() {
    let mut redis = RedisServer::start().await;
    let store = redis.store();
    let (a, b, c) = (record("product", 1), record("product", 2), record("product", 3));
    store.commit(&[put(&a), put(&c)], &[]).await.unwrap();
    redis::cmd("SAVE").exec_async(&mut redis.cli().await).await.unwrap();
    let newer = flipped(&a, roundsman_registry::Health::Passing, "GET /health: 200", a.instance.since);
    store.commit(&[saw(&newer), put(&b)], &[]).await.unwrap();
    redis.stop();
    redis.restart().await;
    eventually("redis loaded its dump", async || {
        matches!(store.probe().await, Err(StoreError::GenerationLost)).then_some(())
    })
    .await;
    store.refill(&shared(&[newer.clone(), b.clone(), c.clone()]), &[]).await.unwrap();
    store.probe().await.unwrap();
    assert_holds(loaded(&redis.store()).await, &[&newer, &b, &c]);
}

#[tokio::test]
async fn a_refill_that_fails_halfway_leaves_the_store_lost() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    let all: Vec<_> = (1..=4_000).map(|n| record("product", n)).collect();
    commit_all(&store, &all).await;
    redis.flush().await;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis.cli().await).await.unwrap();
    let used: u64 = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    redis.configure("maxmemory", &(used + 2_000_000).to_string()).await;
    let full = async || (unavailable(store.refill(&shared(&all), &[]).await) == "redis is out of memory").then_some(());
    eventually("redis is out of memory", full).await;
    redis.configure("maxmemory", "0").await;
    let written = redis.cli().await.hlen("roundsman:{default}:instances").await.unwrap();
    assert!(written > 0 && written < all.len(), "halfway: {written}");
    assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
    assert!(matches!(store.commit(&[put(&all[0])], &[]).await, Err(StoreError::GenerationLost)));
    refill_all(&store, &all).await;
    store.probe().await.unwrap();
    assert_holds(loaded(&redis.store()).await, &all.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_redis_that_hangs_is_unavailable_and_heals() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&a)], &[]).await.unwrap();
    redis.signal("-STOP");
    let deadline = Duration::from_secs(30);
    for _ in 0..2 {
        let result =
            tokio::time::timeout(deadline, store.commit(&[put(&b)], &[])).await.expect("callers must not hang");
        assert_eq!(unavailable(result), "redis does not answer");
    }
    redis.signal("-CONT");
    let last = flipped(&b, roundsman_registry::Health::Passing, "", b.instance.since);
    eventually("redis answers again", async || store.commit(&[put(&b), saw(&last)], &[]).await.ok()).await;
    assert_holds(loaded(&store).await, &[&a, &last]);
}

/// What lies in a socket while Redis hangs must not undo what was written after it.
#[tokio::test]
async fn an_attempt_that_comes_late_is_not_carried_out() {
    let redis = RedisServer::start().await;
    let mut cli = redis.cli().await;
    let script = redis::Script::new(include_str!("../../src/redis/commit.lua"));
    let attempt = |number: u32, id: &'static str| {
        let mut call = script.prepare_invoke();
        for key in ["generation", "changes", "instances", "writer:a", "history", "history:cut", "removed"] {
            call.key(format!("roundsman:{{x}}:{key}"));
        }
        call.arg(&["commit", "", "fresh", "0", "a"]).arg(number).arg(&[
            "100",
            "roundsman:{x}:",
            "1",
            "id",
            "a",
            "0",
            "9",
            "99",
            "0",
        ]);
        call.arg(&["ask", "0", id]).arg(format!("instance:s:{id}")).arg(&["0", "1", "1"]).arg(id);
        call
    };
    let newer: Vec<String> = attempt(2, "new").invoke_async(&mut cli).await.unwrap();
    assert_eq!(newer, ["new", "fresh", "1", "told"]);
    let older: Vec<String> = attempt(1, "old").invoke_async(&mut cli).await.unwrap();
    assert_eq!(older, ["late"]);
    assert!(!cli.exists("roundsman:{x}:instance:s:old").await.unwrap());
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_error() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    let mut cli = redis.cli().await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    assert!(kill.query_async::<u32>(&mut cli).await.unwrap() > 0);
    store.commit(&[put(&record("product", 2))], &[]).await.unwrap();
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut cli).await.unwrap();
    store.commit(&[put(&record("product", 3))], &[]).await.unwrap();
    assert_eq!(loaded(&store).await.len(), 3);
}

/// Redis does not undo a script that failed halfway, so it must fail before it writes.
#[tokio::test]
async fn a_batch_that_cannot_be_written_whole_is_not_written_at_all() {
    for key in ["generation", "changes", "instances"] {
        let redis = RedisServer::start().await;
        let (store, mut cli) = (redis.store(), redis.cli().await);
        store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
        let key = format!("roundsman:{{default}}:{key}");
        cli.rename(&key, "aside").await.unwrap();
        cli.sadd(&key, "something else").await.unwrap();
        let before = cli.keys("*").await.unwrap().len();
        let batch = [put(&record("product", 2)), put(&record("product", 3))];
        let failed = store.commit(&batch, &[]).await.unwrap().failed.pop_first().unwrap();
        let message = unusable::<()>(Err(failed.1));
        assert!(message.contains("something else"), "{message}");
        assert_eq!(cli.keys("*").await.unwrap().len(), before);
        cli.rename("aside", &key).await.unwrap();
        assert_eq!(loaded(&store).await.len(), 1);
    }
}

#[tokio::test]
async fn a_redis_that_is_out_of_memory_writes_nothing_and_says_so() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    let kept = record("product", 1);
    store.commit(&[put(&kept)], &[]).await.unwrap();
    redis.configure("maxmemory", "1").await;
    let batch: Vec<_> = (2..100).map(|n| put(&record("product", n))).collect();
    assert_eq!(unavailable(store.commit(&batch, &[]).await), "redis is out of memory");
    assert_holds(loaded_without_writing(&redis).await, &[&kept]);
    redis.configure("maxmemory", "0").await;
    store.commit(&batch, &[]).await.unwrap();
    assert_eq!(loaded(&store).await.len(), 99);
}

async fn loaded_without_writing(redis: &RedisServer) -> Vec<roundsman_registry::Record> {
    redis.configure("maxmemory", "0").await;
    let found = loaded(&redis.store()).await;
    redis.configure("maxmemory", "1").await;
    found
}

#[tokio::test]
async fn credentials_are_used_and_never_shown() {
    let redis = RedisServer::start_with(&["--requirepass", "s3cret"]).await;
    let at = |credentials: &str| -> StoreUrl {
        format!("redis://{credentials}127.0.0.1:{}/3", redis.port()).parse().unwrap()
    };
    open(&at("default:s3cret@")).commit(&[put(&record("product", 1))], &[]).await.unwrap();
    assert_eq!(loaded(&open(&at(":s3cret@"))).await.len(), 1);
    for wrong in ["", ":wr0ng@", "somebody:wr0ng@"] {
        let store = open(&at(wrong));
        let error = store.load().await.unwrap_err();
        assert!(matches!(&error, StoreError::Unusable(message) if message.contains("refuses")), "{error:?}");
        let later = store.commit(&[put(&record("product", 1))], &[]).await.unwrap_err();
        assert!(matches!(later, StoreError::Unavailable { .. }), "{later:?}");
        let shown = format!("{error:?} {error} {later:?} {store:?} {:?}", store.describe());
        assert!(!shown.contains("wr0ng") && !shown.contains("somebody"), "{shown}");
    }
}

#[tokio::test]
async fn tls_to_a_server_without_it_and_addresses_of_nobody_are_unavailable() {
    let redis = RedisServer::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for url in [format!("rediss://127.0.0.1:{}/0", redis.port()), format!("redis://127.0.0.1:{nobody}/0")] {
        let store = open(&url.parse().unwrap());
        let reason = unavailable(store.load().await);
        assert!(reason.starts_with("redis") || reason.contains("connection"), "{url}: {reason}");
    }
}
