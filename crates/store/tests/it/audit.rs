//! Records that somebody deleted by hand are missed; those that another server removed are not.

use std::sync::Arc;

use redis::AsyncTypedCommands;
use roundsman_registry::Record;
use roundsman_store::{Store, StoreError};

use crate::{
    records::{loaded, put, record, remove, shared},
    redis_server::RedisServer,
    sqlite::Folder,
};

async fn missing(store: &Arc<dyn Store>, records: &[Record]) -> Vec<String> {
    let missing = store.missing(&shared(records)).await.unwrap();
    missing.iter().map(|record| record.instance.id.to_string()).collect()
}

#[tokio::test]
async fn rows_deleted_by_hand_are_missed() {
    let folder = Folder::new();
    let store = folder.store();
    let all: Vec<_> = (1..=20).map(|n| record("product", n)).collect();
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    assert!(missing(&store, &all).await.is_empty());
    let person = rusqlite::Connection::open(&folder.file).unwrap();
    person.execute_batch("DELETE FROM instances WHERE id IN ('product-3', 'product-7')").unwrap();
    // In two parts, as the server looks for them.
    assert_eq!(missing(&store, &all[..5]).await, ["product-3"]);
    assert_eq!(missing(&store, &all[5..]).await, ["product-7"]);
    store.commit(&[put(&all[2]), put(&all[6])], &[]).await.unwrap();
    assert!(missing(&store, &all).await.is_empty());
    drop(store);
    assert_eq!(loaded(&folder.store()).await.len(), 20);
}

#[tokio::test]
async fn keys_and_entries_deleted_by_hand_are_missed_and_removals_are_not() {
    let redis = RedisServer::start().await;
    let (one, two, mut cli) = (redis.store(), redis.store(), redis.cli().await);
    let all: Vec<_> = (1..=20).map(|n| record("product", n)).collect();
    one.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    assert!(missing(&one, &all).await.is_empty());
    cli.del("roundsman:{default}:instance:product:product-3").await.unwrap();
    cli.hdel("roundsman:{default}:instances", "product-7").await.unwrap();
    two.load().await.unwrap();
    two.commit(&[remove(&all[8])], &[]).await.unwrap();
    let mut found = missing(&one, &all).await;
    found.sort();
    assert_eq!(found, ["product-3", "product-7"]);
    // The removal was our own, and the answer to it was lost: whoever asked for it was told that it failed.
    one.commit(&[remove(&all[9])], &[]).await.unwrap();
    assert_eq!(missing(&one, &all[9..10]).await, ["product-10"]);
    redis.flush().await;
    assert!(matches!(one.missing(&shared(&all)).await, Err(StoreError::GenerationLost)));
}
