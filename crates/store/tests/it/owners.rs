//! What every store promises of those who write: nobody overwrites what is not theirs, and nothing that was removed comes back.
//! Part of the contract suite.

use std::{collections::HashSet, sync::Arc};

use roundsman_protocol::Namespace;
use roundsman_registry::{Change, Health, Record, Tombstone};
use roundsman_store::{Standing, Store, StoreError};

use crate::records::{
    again, asked, assert_holds, flipped, forgotten, loaded, now, put, record, record_in, remove, saw, shared,
};

/// The one conflict of the default namespace, after which everything else was written.
async fn conflict(store: &Arc<dyn Store>, changes: &[Change]) -> Vec<Standing> {
    let mut committed = store.commit(changes, &[]).await.unwrap();
    match committed.failed.remove(&Namespace::default()) {
        Some(StoreError::Conflict { standings }) if committed.failed.is_empty() => standings,
        other => panic!("expected a conflict, got {other:?} and {:?}", committed.failed),
    }
}

/// The record with a later request on top.
fn drained(record: &Record) -> Record {
    record.drained(!record.asked.draining, record.asked.version + 1, now())
}

pub(crate) async fn a_request_planned_on_something_older_is_a_conflict(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b, elsewhere) = (record("product", 1), record("product", 2), record_in(&"shop".parse().unwrap(), "x", 1));
    store.commit(&[put(&a)], &[]).await.unwrap();
    let later = drained(&a);
    store.commit(&[asked(&later, &a)], &[]).await.unwrap();

    // Somebody who has not heard of the drain. Of the namespace nothing is written, of others everything.
    let theirs =
        Record { asked: roundsman_registry::Asked { version: later.asked.version + 5, ..a.asked }, ..a.clone() };
    let standings = conflict(&store, &[put(&b), asked(&theirs, &a), put(&elsewhere)]).await;
    assert_eq!(standings, [Standing::There(Arc::new(later.clone()))]);
    assert_holds(loaded(&store).await, &[&later, &elsewhere]);
    let gone =
        Change::Removed { record: Arc::new(a.clone()), version: later.asked.version + 5, expected: a.asked.version };
    assert_eq!(conflict(&store, &[gone]).await, [Standing::There(Arc::new(later.clone()))]);
    // Planned anew, it goes through; and so does the very same once more.
    store.commit(&[asked(&theirs, &later)], &[]).await.unwrap();
    store.commit(&[asked(&theirs, &later)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&theirs, &elsewhere]);
}

pub(crate) async fn what_is_asked_for_and_what_is_observed_leave_each_other_alone(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let a = record("product", 1);
    store.commit(&[put(&a)], &[]).await.unwrap();
    // One server sees something; another one, which has not heard of it, is asked for a drain; and the other way round.
    let (seen, wished) = (flipped(&a, Health::Suspect, "no answer in 1s", now()), drained(&a));
    store.commit(&[saw(&seen)], &[]).await.unwrap();
    store.commit(&[asked(&wished, &a)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!((&found.observed, found.asked), (&seen.observed, wished.asked));
    let evicted = flipped(&seen, Health::Evicted, "no answer in 1s", now());
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!((&found.observed, found.asked), (&evicted.observed, wished.asked));
    let undone = drained(&wished);
    store.commit(&[asked(&undone, &wished)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!((&found.observed, found.asked), (&evicted.observed, undone.asked));
    let back = flipped(&evicted, Health::Passing, "200", now());
    store.commit(&[saw(&back)], &[]).await.unwrap();
    let found = loaded(&store).await.remove(0);
    assert_eq!((&found.observed, found.asked), (&back.observed, undone.asked));
}

pub(crate) async fn what_was_removed_does_not_come_back(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&a), put(&b)], &[]).await.unwrap();
    store.commit(&[remove(&a)], &[]).await.unwrap();
    let tombstone = Tombstone { key: a.key(), version: a.asked.version + 1 };
    assert_eq!(store.load().await.unwrap().removed, std::slice::from_ref(&tombstone));
    // Whatever somebody had on its way: what was seen of it, an earlier request, one on top of what was removed.
    store.commit(&[saw(&flipped(&a, Health::Passing, "200", now()))], &[]).await.unwrap();
    for change in [put(&a), asked(&drained(&a), &a), asked(&drained(&drained(&a)), &a)] {
        assert_eq!(conflict(&store, &[change]).await, [Standing::Gone(tombstone.clone())]);
    }
    store.commit(&[forgotten(&a), remove(&a)], &[]).await.unwrap();
    assert_eq!(store.load().await.unwrap().removed, [tombstone]);
    assert_holds(loaded(&store).await, &[&b]);
    // Whoever registers anew, does.
    let anew = again(&a);
    store.commit(&[Change::Asked { record: Arc::new(anew.clone()), expected: 0 }], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&anew, &b]);
    // A refill takes out what must not be there, unless it was asked for since.
    let buried =
        [Tombstone { key: b.key(), version: b.asked.version }, Tombstone { key: a.key(), version: a.asked.version }];
    store.refill(&shared(std::slice::from_ref(&anew)), &buried).await.unwrap();
    assert_holds(loaded(&store).await, &[&anew]);
}

pub(crate) async fn who_is_not_forgotten_after_all_is_told(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let all = [record("product", 1), record("product", 2), record_in(&"shop".parse().unwrap(), "product", 3)];
    let out = all.clone().map(|record| flipped(&record, Health::Evicted, "503", now()));
    store.commit(&all.each_ref().map(put), &[]).await.unwrap();
    store.commit(&out.each_ref().map(saw), &[]).await.unwrap();
    // Another server saw the first one well, and was asked for something about the second one.
    let [well, wished, _] = &out;
    store.commit(&[saw(&flipped(well, Health::Passing, "200", now()))], &[]).await.unwrap();
    store.commit(&[asked(&drained(wished), wished)], &[]).await.unwrap();
    let committed = store.commit(&out.each_ref().map(forgotten), &[]).await.unwrap();
    assert_eq!(committed.left, HashSet::from([well.key(), wished.key()]));
    assert_eq!(loaded(&store).await.len(), 2);
    let committed = store.commit(&[forgotten(&out[2]), saw(&out[2])], &[]).await.unwrap();
    assert_eq!(committed.left, HashSet::new(), "it is gone, and nothing is left to be told of it");
}

pub(crate) async fn what_was_seen_of_an_earlier_life_is_left_out(store: Arc<dyn Store>) {
    store.load().await.unwrap();
    let a = record("product", 1);
    let reborn = again(&a);
    store.commit(&[put(&a)], &[]).await.unwrap();
    store.commit(&[asked(&reborn, &a)], &[]).await.unwrap();
    let evicted = flipped(&a, Health::Evicted, "503", now());
    store.commit(&[saw(&evicted), forgotten(&evicted)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&reborn]);
    let evicted = flipped(&reborn, Health::Evicted, "503", now());
    store.commit(&[saw(&evicted)], &[]).await.unwrap();
    // Its owner registers again while its probation ends: forgetting comes too late.
    let anew = again(&reborn);
    store.commit(&[asked(&anew, &reborn), forgotten(&evicted)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&anew]);
    let evicted = flipped(&anew, Health::Evicted, "503", now());
    store.commit(&[saw(&evicted), forgotten(&evicted)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[]);
}
