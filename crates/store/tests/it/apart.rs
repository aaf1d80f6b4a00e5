//! What must be kept apart, or put together, when two servers write the same records, and what earlier releases wrote.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::AsyncTypedCommands;
use roundsman_protocol::{InstanceStatus, Timestamp};
use roundsman_registry::{Change, Health, Key, Record, Registry, Tombstone, Tombstones};
use roundsman_store::{Standing, Store, StoreError};

use crate::{
    records::{again, asked, flipped, forgotten, loaded, now, open, open_as, put, record, remove, saw, shared},
    redis_server::RedisServer,
    sqlite::Folder,
};

struct Memory;

impl Memory {
    fn store(&self) -> Arc<dyn Store> {
        open(&"memory:".parse().unwrap())
    }
}

macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod on_memory { $(#[tokio::test] async fn $name() { super::$name(super::Memory.store()).await; })* }
        mod on_sqlite { use crate::sqlite::Folder; $(#[tokio::test] async fn $name() { let f = Folder::new(); super::$name(f.store()).await; })* }
        mod on_redis { use crate::redis_server::RedisServer; $(#[tokio::test] async fn $name() { let r = RedisServer::start().await; super::$name(r.store()).await; })* }
    };
}

on_all!(
    requests_of_the_same_millisecond_are_a_conflict,
    forgetting_leaves_what_another_server_reinstated,
    flips_of_both_sides_stay,
    flips_of_both_sides_stay_within_one_batch,
    a_conflict_tells_of_nothing_that_was_not_written,
);

async fn requests_of_the_same_millisecond_are_a_conflict(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let before = record("product", 1);
    store.commit(&[put(&before)], &[]).await.unwrap();
    // Two servers, each asked for something else in the same millisecond.
    let version = before.asked.version + 5;
    let drained = before.drained(true, version, now());
    let mut registration =
        roundsman_protocol::Registration::new(before.instance.name.clone(), before.instance.address.clone());
    registration.check = (*before.instance.check).clone();
    registration.weight = 7;
    let updated = before.updated(&registration, version);
    store.commit(&[asked(&drained, &before)], &[]).await.unwrap();
    let committed = store.commit(&[asked(&updated, &before)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert!(found.asked.draining, "a drain that was acknowledged is undone; {committed:?}");
}

async fn forgetting_leaves_what_another_server_reinstated(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let live = record("product", 1);
    let evicted = flipped(&live, Health::Evicted, "503", now());
    store.commit(&[put(&live), saw(&evicted)], &[]).await.unwrap();
    // One server hears it answer; for another, cut off from it, its probation ends.
    let back = flipped(&evicted, Health::Passing, "200", now());
    store.commit(&[saw(&back)], &[]).await.unwrap();
    store.commit(&[forgotten(&evicted)], &[]).await.unwrap();
    assert_eq!(loaded(&store).await, [back], "nobody asked for its removal, and it lives");
}

async fn flips_of_both_sides_stay(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let start = Timestamp::from_millis(now().as_millis() - 10_000);
    let live = flipped(&record("product", 1), Health::Passing, "200", start);
    store.commit(&[put(&live)], &[]).await.unwrap();
    let evicted = flipped(&live, Health::Evicted, "503", start.plus(Duration::from_secs(5)));
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    // Asked of a server that has not heard of the eviction.
    let mut registration =
        roundsman_protocol::Registration::new(live.instance.name.clone(), live.instance.address.clone());
    registration.check = (*live.instance.check).clone();
    registration.weight = 7;
    let updated = live.updated(&registration, live.asked.version + 1);
    store.commit(&[asked(&updated, &live)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!((found.status(), found.instance.weight), (InstanceStatus::Evicted, 7));
    assert_eq!(found.instance.since, evicted.instance.since, "evicted since when it still passed");
    assert_eq!(found.flips(), evicted.flips(), "evictions are damped by their number");
}

/// As one server alone plans it: what it saw last rides along with a drain, as that leaves the record.
async fn flips_of_both_sides_stay_within_one_batch(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let start = Timestamp::from_millis(now().as_millis() - 10_000);
    let live = flipped(&record("product", 1), Health::Passing, "200", start);
    store.commit(&[put(&live)], &[]).await.unwrap();
    let drained = live.drained(true, live.asked.version + 1, start.plus(Duration::from_secs(5)));
    let suspect = flipped(&drained, Health::Suspect, "503", start.plus(Duration::from_secs(4)));
    store.commit(&[asked(&drained, &live), saw(&suspect)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!(found.status(), InstanceStatus::Draining);
    assert!(found.flips().iter().any(|flip| flip.status == InstanceStatus::Draining), "{:?}", found.flips());
}

async fn a_conflict_tells_of_nothing_that_was_not_written(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&a), put(&b)], &[]).await.unwrap();
    let later = b.drained(true, b.asked.version + 1, now());
    store.commit(&[asked(&later, &b)], &[]).await.unwrap();
    // The batch as the writer plans it: `a` is deregistered, and is among those that the store is thought to have lost.
    let gone = remove(&a);
    let mut committed = store.commit(&[gone, put(&a), saw(&a)], &[]).await.unwrap();
    if let Some(StoreError::Conflict { standings }) = committed.failed.remove(&a.instance.namespace) {
        let there = loaded(&store).await;
        for standing in standings {
            match &standing {
                Standing::Gone(tombstone) => {
                    assert!(
                        !there.iter().any(|record| record.key() == tombstone.key),
                        "told to be gone, and is there: {standing:?}"
                    );
                }
                Standing::There(record) => assert!(there.contains(record), "{standing:?}"),
            }
        }
    }
}

/// What a release before versions wrote: the first eighteen fields.
async fn as_an_earlier_release_wrote_it(redis: &RedisServer, key: &str) {
    let mut cli = redis.cli().await;
    cli.hdel(key, &["asked", "incarnation", "evidence", "observed_since", "observed_by"]).await.unwrap();
}

fn aged(record: &Record) -> Record {
    // What the reader takes for the version of an earlier release's record.
    let version = record.instance.registered_at.as_millis();
    Record { asked: roundsman_registry::Asked { version, incarnation: version, ..record.asked }, ..record.clone() }
}

#[tokio::test]
async fn a_new_life_of_a_record_of_an_earlier_release_begins_anew_in_redis() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.load().await.unwrap();
    let live = aged(&record("product", 1));
    let evicted = flipped(&live, Health::Evicted, "503", now());
    store.commit(&[put(&live)], &[]).await.unwrap();
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    as_an_earlier_release_wrote_it(&redis, "roundsman:{default}:evicted:product:product-1").await;
    let reborn = again(&live);
    let registered_at = Timestamp::from_millis(live.instance.registered_at.as_millis() + 2);
    let instance = roundsman_protocol::Instance { registered_at, ..(*reborn.instance).clone() };
    let reborn = Record::restored(instance, reborn.asked, reborn.observed, reborn.history);
    store.commit(&[asked(&reborn, &evicted)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!(found.observed.health, reborn.observed.health);
    assert!(redis.cli().await.exists("roundsman:{default}:instance:product:product-1").await.unwrap());
}

#[tokio::test]
async fn a_removal_by_an_earlier_release_removes_whatever_there_was() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    let position = store.load().await.unwrap().position;
    let live = aged(&record("product", 1));
    store.commit(&[put(&live)], &[]).await.unwrap();
    let drained = live.drained(true, live.asked.version + 1, now());
    store.commit(&[asked(&drained, &live)], &[]).await.unwrap();
    let mut cli = redis.cli().await;
    let generation = cli.get("roundsman:{default}:generation").await.unwrap().unwrap();
    let fields = cli.hgetall("roundsman:{default}:instance:product:product-1").await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("roundsman:{default}:changes")
        .arg("3-0")
        .arg("by")
        .arg("old")
        .arg("generation")
        .arg(generation)
        .arg("op")
        .arg("remove");
    let later = ["asked", "incarnation", "evidence", "observed_since", "observed_by"];
    for (name, value) in fields.iter().filter(|(name, _)| !later.contains(&name.as_str())) {
        add.arg(name).arg(value);
    }
    let mut connection = redis.cli().await;
    let _: String = add.query_async(&mut connection).await.unwrap();
    let other = open_as(&redis.url(), "a third one");
    let mut changes = other.changes(position);
    let found = loop {
        let foreign = tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap().unwrap();
        if let Standing::Gone(tombstone) = foreign.standing {
            break tombstone;
        }
    };
    assert!(found.version >= drained.asked.version, "servers keep what was removed: {found:?}");
}

#[tokio::test]
async fn a_refill_of_a_replaced_file_writes_everything_or_fails() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (a, b) = (record("product", 1), record("product", 2));
    let store = folder.store();
    store.load().await.unwrap();
    store.commit(&[put(&a), put(&b)], &[]).await.unwrap();
    // A file of another server, in which one of these ids was removed later.
    let elsewhere = other.store();
    elsewhere.load().await.unwrap();
    elsewhere.commit(&[put(&a), remove(&a)], &[]).await.unwrap();
    drop(elsewhere);
    std::fs::copy(&other.file, folder.dir.path().join("new")).unwrap();
    for beside in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{beside}", folder.file.display()));
    }
    std::fs::rename(folder.dir.path().join("new"), &folder.file).unwrap();
    assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
    let refilled = store.refill(&shared(&[a.clone(), b.clone()]), &[]).await;
    if refilled.is_ok() {
        assert!(loaded(&store).await.contains(&b), "refilled, and the whole namespace is missing");
    }
}

#[tokio::test]
async fn old_tombstones_leave_the_file_although_the_server_is_started_anew_now_and_then() {
    let folder = Folder::new();
    folder.store().load().await.unwrap();
    {
        let connection = rusqlite::Connection::open(&folder.file).unwrap();
        let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200000) \
                   INSERT INTO removed SELECT 'default', 'a-' || x, 1000 + x FROM n";
        connection.execute_batch(sql).unwrap();
    }
    for n in 0..3 {
        let store = folder.store();
        store.load().await.unwrap();
        let a = record("product", n);
        store.commit(&[put(&a), remove(&a)], &[]).await.unwrap();
        store.probe().await.unwrap();
    }
    let connection = rusqlite::Connection::open(&folder.file).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM removed", [], |row| row.get(0)).unwrap();
    assert!(count <= i64::try_from(Tombstones::MOST).unwrap(), "{count} tombstones of 1970");
}

#[tokio::test]
async fn a_tombstone_that_somebody_wrote_by_hand_makes_no_later_record_unreadable() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.load().await.unwrap();
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    let mut cli = redis.cli().await;
    let _: i64 =
        redis::cmd("ZADD").arg("roundsman:{default}:removed").arg("9e15").arg("x").query_async(&mut cli).await.unwrap();
    let snapshot = store.load().await.unwrap();
    let registry = Registry::new(1);
    for Tombstone { version, .. } in snapshot.removed {
        registry.saw_version(version);
    }
    let fresh = record("product", 2);
    let version = registry.next_version(now());
    let fresh = Record {
        asked: roundsman_registry::Asked { version, incarnation: version, ..roundsman_registry::Asked::default() },
        ..fresh
    };
    let _: Key = fresh.key();
    store.commit(&[Change::Asked { record: Arc::new(fresh), expected: 0 }], &[]).await.unwrap();
    let snapshot = store.load().await.unwrap();
    assert_eq!((snapshot.records.len(), snapshot.damaged.len()), (2, 0), "{:?}", snapshot.damaged);
}

/// The last visit of a probation is at its very end, and one that proves itself is not forgotten over it.
#[tokio::test]
async fn one_that_is_reinstated_at_the_end_of_its_probation_is_stored() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.load().await.unwrap();
    let since =
        Timestamp::from_millis(now().as_millis() - u64::try_from(crate::records::RETENTION.as_millis()).unwrap() + 50);
    let live = record("product", 1);
    let evicted = flipped(&live, Health::Evicted, "503", since);
    store.commit(&[put(&live)], &[]).await.unwrap();
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let back = flipped(&evicted, Health::Passing, "200", now());
    store.commit(&[saw(&back)], &[]).await.unwrap();
    assert_eq!(loaded(&store).await, [back], "handed out here, and not stored");
}

#[tokio::test]
async fn an_id_of_an_earlier_release_that_moves_to_another_service_can_be_read() {
    let redis = RedisServer::start().await;
    let store = redis.store();
    store.load().await.unwrap();
    let live = aged(&record("product", 1));
    store.commit(&[put(&live)], &[]).await.unwrap();
    as_an_earlier_release_wrote_it(&redis, "roundsman:{default}:instance:product:product-1").await;
    // Deregistered and registered in one batch.
    let order = again(&aged(&record("order", 1)));
    let instance = roundsman_protocol::Instance { id: live.instance.id.clone(), ..(*order.instance).clone() };
    let moved = Record::restored(instance, order.asked, order.observed, order.history);
    store.commit(&[asked(&moved, &live)], &[]).await.unwrap();
    let snapshot = store.load().await.unwrap();
    assert_eq!((snapshot.records.len(), snapshot.damaged), (1, Vec::new()));
}
