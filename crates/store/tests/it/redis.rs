//! Redis when all is well: the contract, and the layout that people see.

use std::collections::BTreeSet;

use redis::AsyncTypedCommands;
use roundsman_protocol::Registration;
use roundsman_registry::{Health, Key, Record};

use crate::{
    records::{RETENTION, assert_holds, eventually, flipped, loaded, now, put, record, record_in, remove, saw},
    redis_server::RedisServer,
};

crate::contract::contract!(RedisServer::start().await);

#[tokio::test]
async fn a_person_reads_name_address_and_health() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    let live = flipped(&record("product", 1), Health::Passing, "GET /health: 200", now());
    store.commit(&[put(&live)], &[]).await.unwrap();

    let key = "roundsman:{default}:instance:product:product-1";
    let fields = cli.hgetall(key).await.unwrap();
    let field = |name: &str| fields[name].as_str();
    assert_eq!((field("name"), field("id")), ("product", "product-1"));
    assert_eq!((field("address"), field("health")), ("10.0.0.1:7070", "/health"));
    assert_eq!((field("namespace"), field("status"), field("reason")), ("default", "passing", "GET /health: 200"));
    assert!(field("check").contains("\"kind\":\"http\""));
    for name in ["since", "registered_at", "tags", "meta", "zone", "version", "weight", "draining", "history"] {
        assert!(fields.contains_key(name), "{name}");
    }
    assert_eq!(cli.pttl(key).await.unwrap(), redis::IntegerReplyOrNoOp::ExistsButNotRelevant);

    assert!(cli.get("roundsman:{default}:generation").await.unwrap().is_some_and(|name| name.len() == 16));
    assert_eq!(cli.smembers("roundsman:namespaces").await.unwrap(), ["default".to_owned()].into());
    assert_eq!(cli.xlen("roundsman:{default}:changes").await.unwrap(), 1);
}

#[tokio::test]
async fn an_instance_without_a_path_has_an_empty_health() {
    let redis = RedisServer::start().await;
    let registration = Registration {
        check: roundsman_protocol::Check::tcp(),
        ..Registration::new("db".parse().unwrap(), "10.0.0.1:5432".parse().unwrap())
    };
    let key = Key { namespace: "shop".parse().unwrap(), id: "db-1".parse().unwrap() };
    let record = Record::registered(&key, &registration, 1, now());
    redis.store().commit(&[put(&record)], &[]).await.unwrap();
    let fields = redis.cli().await.hgetall("roundsman:{shop}:instance:db:db-1").await.unwrap();
    assert_eq!(fields["health"], "");
}

#[tokio::test]
async fn an_eviction_leaves_the_live_store_and_expires() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    let live = record("product", 1);
    let evicted = flipped(&live, Health::Evicted, "connection refused", now());
    store.commit(&[put(&live)], &[]).await.unwrap();
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    let (live_key, evicted_key) =
        ("roundsman:{default}:instance:product:product-1", "roundsman:{default}:evicted:product:product-1");
    assert!(!cli.exists(live_key).await.unwrap());
    assert_eq!(cli.hget(evicted_key, "reason").await.unwrap().as_deref(), Some("connection refused"));
    let ttl = cli.pttl(evicted_key).await.unwrap();
    let redis::IntegerReplyOrNoOp::IntegerReply(ttl) = ttl else { panic!("no expiry: {ttl:?}") };
    assert!(ttl > 0 && u128::try_from(ttl).unwrap() <= RETENTION.as_millis());

    let back = flipped(&evicted, Health::Passing, "GET /health: 200", now());
    store.commit(&[saw(&back)], &[]).await.unwrap();
    assert!(cli.exists(live_key).await.unwrap() && !cli.exists(evicted_key).await.unwrap());
    store.commit(&[remove(&back)], &[]).await.unwrap();
    assert!(!cli.exists(live_key).await.unwrap());
}

#[tokio::test]
async fn expired_records_leave_the_index_at_the_next_load() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    let evicted = flipped(&record("product", 1), Health::Evicted, "503", roundsman_protocol::Timestamp::from_millis(1));
    store.commit(&[put(&evicted), put(&record("product", 2))], &[]).await.unwrap();
    eventually("the index is tidy", async || {
        store.load().await.unwrap();
        let index = cli.hgetall("roundsman:{default}:instances").await.unwrap();
        (index.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_key_of_a_namespace_is_in_its_slot_and_nothing_is_left_behind() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    let record = record_in(&"shop".parse().unwrap(), "product", 1);
    store.load().await.unwrap();
    store.commit(&[put(&record)], &[]).await.unwrap();
    let keys: BTreeSet<_> = cli.keys("*").await.unwrap().into_iter().collect();
    assert!(keys.iter().all(|key| key.starts_with("roundsman:{shop}:") || key == "roundsman:namespaces"), "{keys:?}");
    assert_eq!(keys.len(), 6, "{keys:?}");
    store.commit(&[remove(&record)], &[]).await.unwrap();
    let keys = cli.keys("*").await.unwrap();
    assert!(keys.contains(&"roundsman:{shop}:removed".to_owned()));
    assert!(keys.len() == 5 && !keys.iter().any(|key| key.contains("product")), "{keys:?}");
}

#[tokio::test]
async fn another_server_loads_what_one_committed() {
    let redis = RedisServer::start().await;
    let evicted = flipped(&record("product", 2), Health::Evicted, "503", now());
    let all = [record("product", 1), evicted, record_in(&"shop".parse().unwrap(), "order", 1)];
    redis.store().commit(&all.each_ref().map(put), &[]).await.unwrap();
    let found = loaded(&redis.store()).await;
    assert_holds(found, &all.iter().collect::<Vec<_>>());
}
