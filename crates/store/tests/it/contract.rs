//! What every store promises. Each function gets an empty store of some kind.

use std::{collections::HashSet, sync::Arc, time::Duration};

use roundsman_protocol::{Namespace, Registration, Timestamp, limits};
use roundsman_registry::{Health, Key, Record};
use roundsman_store::{Position, Store};

use crate::records::{
    RETENTION, again, asked, assert_holds, commit_all, eventually, flipped, loaded, now, put, record, record_in,
    remove, saw, shared,
};
pub(crate) use crate::{lasting::*, owners::*};

/// Runs the whole suite: `$start` makes a place for a store, which has `store()`.
macro_rules! contract {
    ($start:expr) => {
        crate::contract::contract!($start;
            an_empty_store_loads_empty,
            what_was_put_is_loaded,
            unicode_and_the_largest_records_survive,
            a_later_put_replaces_an_earlier_one,
            an_id_that_moves_to_another_service_is_one_record,
            evicted_records_are_kept_and_reinstated,
            evicted_records_are_forgotten_when_probation_is_over,
            removals_remove_what_is_there,
            a_batch_is_carried_out_in_order,
            an_empty_batch_changes_nothing,
            the_same_batch_twice_does_no_harm,
            a_request_planned_on_something_older_is_a_conflict,
            what_is_asked_for_and_what_is_observed_leave_each_other_alone,
            what_was_removed_does_not_come_back,
            what_was_seen_of_an_earlier_life_is_left_out,
            who_is_not_forgotten_after_all_is_told,
            namespaces_do_not_meet,
            ten_thousand_records_go_in_one_batch,
            a_store_that_was_loaded_passes_the_probe,
            a_refill_of_a_whole_store_keeps_what_is_in_it,
            who_is_remembered_longer_is_forgotten_by_servers_alone,
            blocks_and_the_drains_of_operators_are_kept,
        );
    };
    ($start:expr; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let place = $start;
                crate::contract::$name(place.store()).await;
            }
        )*
    };
}
pub(crate) use contract;

pub(crate) async fn an_empty_store_loads_empty(store: Arc<dyn Store>) {
    assert_holds(loaded(&store).await, &[]);
}

pub(crate) async fn what_was_put_is_loaded(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let starting = record("product", 1);
    let passing = flipped(&record("product", 2), Health::Passing, "GET /health: 200", now());
    let draining = flipped(&passing, Health::Suspect, "503", now()).drained(true, passing.asked.version + 1, now());
    let draining = Record { instance: Arc::new(with_id(&draining, "product-3")), ..draining };
    let mut flapping = record("order", 1);
    for n in 0..100 {
        let health = if n % 2 == 0 { Health::Passing } else { Health::Suspect };
        flapping = flipped(&flapping, health, &format!("visit {n}"), Timestamp::from_millis(n));
    }
    let all = [&starting, &passing, &draining, &flapping];
    store.commit(&all.map(put), &[]).await.unwrap();
    let found = loaded(&store).await;
    assert_holds(found, &all);
}

fn with_id(record: &Record, id: &str) -> roundsman_protocol::Instance {
    roundsman_protocol::Instance { id: id.parse().unwrap(), ..record.instance.as_ref().clone() }
}

pub(crate) async fn unicode_and_the_largest_records_survive(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let half = limits::MAX_META_BYTES / 2 - 64;
    let registration = Registration {
        tags: (0..limits::MAX_TAGS).map(|n| format!("тег {n} \"\\ 🐦").into()).collect(),
        meta: [("ключ\u{202e}", "з".repeat(half / 2)), ("k", "\u{1}\0\n\"".repeat(half / 4))].into_iter().collect(),
        zone: Some("zürich ✓".into()),
        version: Some("1.0.0-β".into()),
        weight: *limits::WEIGHT.end(),
        ..Registration::new("product".parse().unwrap(), "[2001:db8::1]:65535".parse().unwrap())
    };
    registration.validate().unwrap();
    let id = format!("A:b_c.d-{}", "x".repeat(limits::MAX_ID_LEN - 8));
    let key = Key { namespace: Namespace::default(), id: id.parse().unwrap() };
    let odd = Record::registered(&key, &registration, 1, Timestamp::MAX);
    let odd = flipped(&odd, Health::Passing, "\u{1f426} 'quoted' \\ \"twice\" {}", Timestamp::default());
    store.commit(&[put(&odd)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&odd]);
}

pub(crate) async fn a_later_put_replaces_an_earlier_one(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (before, other) = (record("product", 1), record("product", 2));
    store.commit(&[put(&before), put(&other)], &[]).await.unwrap();
    let after = flipped(&before, Health::Passing, "GET /health: 200", now());
    store.commit(&[saw(&after)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&after, &other]);
    let drained = after.drained(true, after.asked.version + 1, now());
    store.commit(&[asked(&drained, &after)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&drained, &other]);
}

pub(crate) async fn an_id_that_moves_to_another_service_is_one_record(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (product, order) = (record("product", 1), record("order", 1));
    let moved = again(&Record { instance: Arc::new(with_id(&order, "product-1")), ..order });
    store.commit(&[put(&product)], &[]).await.unwrap();
    store.commit(&[put(&moved)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&moved]);
    store.commit(&[remove(&moved)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[]);
}

pub(crate) async fn evicted_records_are_kept_and_reinstated(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let live = record("product", 1);
    store.commit(&[put(&live)], &[]).await.unwrap();
    let evicted = flipped(&live, Health::Evicted, "no answer in 1s", now());
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&evicted]);
    let back = flipped(&evicted, Health::Passing, "GET /health: 200", now());
    store.commit(&[saw(&back)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&back]);
}

pub(crate) async fn evicted_records_are_forgotten_when_probation_is_over(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let ago = |left: Duration| Timestamp::from_millis(now().as_millis() - millis(RETENTION - left));
    let long_gone = flipped(&record("product", 1), Health::Evicted, "503", Timestamp::from_millis(1));
    let nearly = flipped(&record("product", 2), Health::Evicted, "503", ago(Duration::from_secs(2)));
    let fresh = flipped(&record("product", 3), Health::Evicted, "503", now());
    let old_but_live = flipped(&record("product", 4), Health::Passing, "", Timestamp::from_millis(1));
    store.commit(&[&long_gone, &nearly, &fresh, &old_but_live].map(put), &[]).await.unwrap();
    eventually("the record of long ago is gone", async || {
        let found = loaded(&store).await;
        (!found.contains(&long_gone)).then_some(())
    })
    .await;
    eventually("the second record is gone", async || {
        let found = loaded(&store).await;
        (!found.contains(&nearly)).then_some(())
    })
    .await;
    assert_holds(loaded(&store).await, &[&fresh, &old_but_live]);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

pub(crate) async fn removals_remove_what_is_there(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (live, kept) = (record("product", 1), record("product", 3));
    let evicted = flipped(&record("product", 2), Health::Evicted, "503", now());
    store.commit(&[put(&live), put(&evicted), put(&kept)], &[]).await.unwrap();
    // The committer may know an older state of what it removes, and remove what nobody has.
    let as_it_was = record("product", 2);
    store.commit(&[remove(&live), remove(&as_it_was), remove(&record("product", 9))], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&kept]);
}

pub(crate) async fn a_batch_is_carried_out_in_order(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("product", 2));
    let later = again(&a);
    store.commit(&[put(&a), remove(&a), put(&later), put(&b), remove(&b)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&later]);
}

pub(crate) async fn an_empty_batch_changes_nothing(store: Arc<dyn Store>) {
    store.commit(&[], &[]).await.unwrap();
    let only = record("product", 1);
    store.commit(&[put(&only)], &[]).await.unwrap();
    store.commit(&[], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&only]);
}

pub(crate) async fn the_same_batch_twice_does_no_harm(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&b)], &[]).await.unwrap();
    let batch = [put(&a), remove(&b)];
    store.commit(&batch, &[]).await.unwrap();
    store.commit(&batch, &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&a]);
}

pub(crate) async fn namespaces_do_not_meet(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let all: Vec<_> = (0..50).map(|n| record_in(&format!("ns-{n}").parse().unwrap(), "product", 1)).collect();
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    store.commit(&[remove(&all[7])], &[]).await.unwrap();
    let expected: Vec<_> = all.iter().filter(|record| *record != &all[7]).collect();
    assert_holds(loaded(&store).await, &expected);
    store.probe().await.unwrap();
}

pub(crate) async fn ten_thousand_records_go_in_one_batch(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let all: Vec<_> = (1..=10_000).map(|n| record("product", n)).collect();
    commit_all(&store, &all).await;
    let found = loaded(&store).await;
    assert_eq!(found.iter().map(Record::key).collect::<HashSet<_>>().len(), 10_000);
    assert_holds(found, &all.iter().collect::<Vec<_>>());
}

pub(crate) async fn a_store_that_was_loaded_passes_the_probe(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    store.probe().await.unwrap();
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    store.probe().await.unwrap();
    store.load().await.unwrap();
    store.probe().await.unwrap();
}

pub(crate) async fn a_refill_of_a_whole_store_keeps_what_is_in_it(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("order", 1));
    store.commit(&[put(&a)], &[]).await.unwrap();
    let position = store.refill(&shared(&[a.clone(), b.clone()]), &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&a, &b]);
    store.probe().await.unwrap();
    drop(store.changes(position));
    drop(store.changes(Position::default()));
}
