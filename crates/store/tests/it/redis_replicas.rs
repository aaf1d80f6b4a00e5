//! Several servers on one Redis: what each hears of the others.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use redis::AsyncTypedCommands;
use roundsman_registry::{Health, Record, Tombstone};
use roundsman_store::{Foreign, Position, Standing, Store, StoreError};

use crate::{
    records::{
        asked, assert_holds, commit_all, eventually, flipped, loaded, now, put, record, record_in, refill_all, remove,
        saw, shared,
    },
    redis_server::RedisServer,
};

type Changes = BoxStream<'static, Result<Foreign, StoreError>>;

async fn follow(store: &Arc<dyn Store>) -> Changes {
    store.changes(store.load().await.unwrap().position)
}

/// The next item, or a loud end of the test.
async fn next(changes: &mut Changes) -> Option<Result<Foreign, StoreError>> {
    tokio::time::timeout(Duration::from_secs(60), changes.next()).await.expect("nothing was told")
}

async fn next_change(changes: &mut Changes) -> Foreign {
    next(changes).await.expect("the stream ended").unwrap()
}

#[track_caller]
fn assert_put(foreign: &Foreign, expected: &Record) {
    assert!(matches!(&foreign.standing, Standing::There(record) if **record == *expected), "{foreign:?}");
}

#[tokio::test]
async fn two_servers_hear_of_each_other_and_not_of_themselves() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let (mut heard_by_one, mut heard_by_two) = (follow(&one).await, follow(&two).await);

    let (a, b) = (record("product", 1), record("product", 2));
    let evicted = flipped(&a, Health::Evicted, "no answer in 1s", now());
    one.commit(&[put(&a)], &[]).await.unwrap();
    two.commit(&[put(&b)], &[]).await.unwrap();
    one.commit(&[saw(&evicted), remove(&evicted)], &[]).await.unwrap();

    assert_put(&next_change(&mut heard_by_two).await, &a);
    assert_put(&next_change(&mut heard_by_two).await, &evicted);
    let removed = next_change(&mut heard_by_two).await;
    let version = evicted.asked.version + 1;
    assert_eq!(removed.standing, Standing::Gone(Tombstone { key: evicted.key(), version }));
    assert_put(&next_change(&mut heard_by_one).await, &b);
}

#[tokio::test]
async fn a_position_goes_on_exactly_where_it_stood() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let (a, b, c) = (record("product", 1), record("product", 2), record("product", 3));
    one.commit(&[put(&a)], &[]).await.unwrap();
    let mut changes = follow(&two).await;
    one.commit(&[put(&b), put(&c)], &[]).await.unwrap();
    let first = next_change(&mut changes).await;
    assert_put(&first, &b);
    drop(changes);
    let mut changes = two.changes(first.position);
    assert_put(&next_change(&mut changes).await, &c);
}

#[tokio::test]
async fn namespaces_that_appear_later_are_heard_of() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let mut changes = follow(&two).await;
    for namespace in ["shop", "bank", "default"] {
        let record = record_in(&namespace.parse().unwrap(), "product", 1);
        one.commit(&[put(&record)], &[]).await.unwrap();
        assert_put(&next_change(&mut changes).await, &record);
    }
    // What was learned that way counts as known: its loss is noticed.
    two.probe().await.unwrap();
    redis.flush().await;
    assert!(matches!(two.probe().await, Err(StoreError::GenerationLost)));
}

#[tokio::test]
async fn a_trimmed_stream_ends_instead_of_skipping() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    one.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    let position = two.load().await.unwrap().position;
    for n in 2..5 {
        one.commit(&[put(&record("product", n))], &[]).await.unwrap();
    }
    let mut trim = redis::cmd("XTRIM");
    trim.arg("roundsman:{default}:changes").arg("MAXLEN").arg(1);
    trim.exec_async(&mut redis.cli().await).await.unwrap();
    assert!(next(&mut two.changes(position)).await.is_none());
    assert!(next(&mut two.changes(Position("garbage".into()))).await.is_none());
    assert_eq!(loaded(&two).await.len(), 4);
}

#[tokio::test]
async fn an_emptied_store_or_a_deleted_stream_ends_what_is_followed() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    one.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    let mut changes = follow(&two).await;
    redis.cli().await.del("roundsman:{default}:changes").await.unwrap();
    assert!(next(&mut changes).await.is_none());
    assert!(matches!(two.load().await, Err(StoreError::GenerationLost)));

    let mut changes = two.changes(two.refill(&shared(&[record("product", 1)]), &[]).await.unwrap());
    redis.flush().await;
    assert!(next(&mut changes).await.is_none());
}

#[tokio::test]
async fn after_flushall_both_servers_end_up_with_the_union_and_nothing_newer_is_lost() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let (a, b, both) = (record("product", 1), record("product", 2), record("product", 3));
    one.commit(&[put(&a), put(&both)], &[]).await.unwrap();
    two.load().await.unwrap();
    redis.flush().await;

    let position_of_one = one.refill(&shared(&[a.clone(), both.clone()]), &[]).await.unwrap();
    let newer = flipped(&both, Health::Passing, "GET /health: 200", now());
    one.commit(&[saw(&newer)], &[]).await.unwrap();
    // The other one has not heard of the newer state, and of one instance that the first does not know.
    assert!(matches!(two.commit(&[put(&b)], &[]).await, Err(StoreError::GenerationLost)));
    let position_of_two = two.refill(&shared(&[b.clone(), both.clone()]), &[]).await.unwrap();

    for store in [&one, &two, &redis.store()] {
        store.probe().await.unwrap();
        assert_holds(loaded(store).await, &[&a, &b, &newer]);
    }
    assert_put(&next_change(&mut one.changes(position_of_one)).await, &b);
    let mut heard = two.changes(position_of_two);
    for expected in [&a, &both, &newer] {
        assert_put(&next_change(&mut heard).await, expected);
    }
}

#[tokio::test]
async fn two_servers_that_refill_at_the_same_time_agree() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let all: Vec<_> = (1..=3_000).map(|n| record("product", n)).collect();
    one.commit(&[put(&all[0])], &[]).await.unwrap();
    two.load().await.unwrap();
    redis.flush().await;
    futures::join!(refill_all(&one, &all[..2_000]), refill_all(&two, &all[1_000..]));
    for store in [&one, &two] {
        store.probe().await.unwrap();
        assert_holds(loaded(store).await, &all.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_what_came_after_it_is_heard() {
    let mut redis = RedisServer::durable().await;
    let (one, two) = (redis.store(), redis.store());
    one.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    let mut changes = follow(&two).await;
    redis.stop();
    assert!(matches!(next(&mut changes).await, Some(Err(StoreError::Unavailable { .. }))));
    redis.restart().await;
    let after = record("product", 2);
    eventually("the first server can commit", async || one.commit(&[put(&after)], &[]).await.ok()).await;
    assert_put(&next_change(&mut changes).await, &after);
}

#[tokio::test]
async fn loading_while_others_commit_misses_nothing() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let all: Vec<_> = (1..=4_000).map(|n| record("product", n)).collect();
    commit_all(&one, &all[..2_000]).await;
    let committing = async {
        for batch in all[2_000..].chunks(20) {
            one.commit(&batch.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
        }
    };
    let reading = async {
        let snapshot = two.load().await.unwrap();
        let mut known: std::collections::BTreeMap<_, _> =
            snapshot.records.into_iter().map(|record| (record.key(), record)).collect();
        let mut changes = two.changes(snapshot.position);
        while known.len() < all.len() {
            let Standing::There(record) = next_change(&mut changes).await.standing else {
                panic!("nothing was removed")
            };
            known.insert(record.key(), Record::clone(&record));
        }
        known.into_values().collect::<Vec<_>>()
    };
    let ((), found) = futures::join!(committing, reading);
    assert_holds(found, &all.iter().collect::<Vec<_>>());
}

/// While both releases run, what an earlier one is asked for counts.
#[tokio::test]
async fn what_an_earlier_release_commits_is_later_than_what_it_found() {
    let redis = RedisServer::start().await;
    let (one, two) = (redis.store(), redis.store());
    let a = record("product", 1);
    one.commit(&[put(&a)], &[]).await.unwrap();
    let later = a.drained(true, a.asked.version + 1, now());
    one.commit(&[asked(&later, &a)], &[]).await.unwrap();
    let mut heard = follow(&two).await;
    let mut cli = redis.cli().await;
    let key = "roundsman:{default}:instance:product:product-1";
    let mut fields: Vec<(String, String)> = cli.hgetall(key).await.unwrap().into_iter().collect();
    let new = ["asked", "incarnation", "evidence", "observed_since", "observed_by"];
    fields.retain(|(name, _)| !new.contains(&name.as_str()));
    fields.iter_mut().filter(|(name, _)| name == "weight").for_each(|(_, weight)| "9".clone_into(weight));
    let generation = cli.get("roundsman:{default}:generation").await.unwrap().unwrap();
    redis::cmd("HDEL").arg(key).arg(&new).exec_async(&mut cli).await.unwrap();
    redis::cmd("HSET").arg(key).arg("weight").arg(9).exec_async(&mut cli).await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("roundsman:{default}:changes").arg("3-0").arg(&["by", "old", "op", "put", "generation", &generation]);
    for (name, value) in &fields {
        add.arg(name).arg(value);
    }
    add.exec_async(&mut cli).await.unwrap();
    let Standing::There(record) = next_change(&mut heard).await.standing else { panic!("it was put") };
    assert!(record.asked.version >= later.asked.version && record.instance.weight == 9, "{record:?}");
    // And what is asked for on top of it is no conflict.
    let back = record.drained(false, record.asked.version + 1, now());
    let committed = two.commit(&[asked(&back, &record), saw(&back)], &[]).await.unwrap();
    assert!(committed.failed.is_empty(), "{:?}", committed.failed);
    assert_eq!(loaded(&one).await[0].asked.version, back.asked.version);
}
