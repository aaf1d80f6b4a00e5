//! What every store promises of those who are remembered for a time of their own, kept out, or drained by an operator. Part
//! of the contract suite.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Registration, Timestamp};
use roundsman_registry::{Health, Record};
use roundsman_store::Store;

use crate::records::{asked, assert_holds, eventually, flipped, forgotten, loaded, now, put, record, saw};

const LONG: Duration = Duration::from_secs(72 * 3_600);

/// The same with another time for which it is remembered.
fn remembered(record: &Record, forget_after: Option<Duration>) -> Record {
    let known = &*record.instance;
    let registration = Registration {
        check: (*known.check).clone(),
        forget_after,
        ..Registration::new(known.name.clone(), known.address.clone())
    };
    record.updated(&registration, record.asked.version + 1)
}

fn evicted_long_ago(record: &Record) -> Record {
    flipped(record, Health::Evicted, "503", Timestamp::from_millis(1))
}

pub(crate) async fn who_is_remembered_longer_is_forgotten_by_servers_alone(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let patient = evicted_long_ago(&remembered(&record("product", 1), Some(LONG)));
    // Evicted first, and remembered for longer since.
    let before = evicted_long_ago(&record("product", 2));
    let late = remembered(&before, Some(LONG));
    // The other way round, the usual probation holds.
    let was_patient = evicted_long_ago(&remembered(&record("product", 3), Some(LONG)));
    let usual = remembered(&was_patient, None);
    // Live when it asks for it; what another server saw before it heard of that comes later.
    let live = record("product", 4);
    let asks = remembered(&live, Some(LONG));
    let changes = [
        put(&patient),
        put(&before),
        asked(&late, &before),
        put(&was_patient),
        asked(&usual, &was_patient),
        put(&live),
        asked(&asks, &live),
    ];
    store.commit(&changes, &[]).await.unwrap();
    store.commit(&[saw(&evicted_long_ago(&asks))], &[]).await.unwrap();
    eventually("the usual one is gone", async || (!loaded(&store).await.contains(&usual)).then_some(())).await;
    assert_holds(loaded(&store).await, &[&patient, &late, &evicted_long_ago(&asks)]);
    store.commit(&[forgotten(&patient), forgotten(&late)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&evicted_long_ago(&asks)]);
}

pub(crate) async fn blocks_and_the_drains_of_operators_are_kept(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&a), put(&b)], &[]).await.unwrap();
    let held = a.held(a.asked.version + 1, now());
    // Over long ago: also that is for a server to end, who tells of it.
    let blocked = b.blocked(Timestamp::from_millis(1_000), "order at 10.0.0.9:1", b.asked.version + 1, now());
    store.commit(&[asked(&held, &a), asked(&blocked, &b)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&held, &blocked]);
    // What was seen of the life before says nothing of the block.
    store.commit(&[saw(&flipped(&b, Health::Passing, "200", now()))], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&held, &blocked]);
    let free = held.drained(false, held.asked.version + 1, now());
    store.commit(&[asked(&free, &held), forgotten(&blocked)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&free]);
}
