//! Records to put into stores, and how to compare what comes out.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Check, Clock, Namespace, Registration, Timestamp};
use roundsman_registry::{Asked, Change, Health, Key, Record};
use roundsman_store::{Store, StoreError, StoreUrl};

/// How long stores in these tests keep evicted records.
pub(crate) const RETENTION: Duration = Duration::from_secs(60);

pub(crate) fn open(url: &StoreUrl) -> Arc<dyn Store> {
    open_as(url, &format!("server-{}", fastrand::u64(..)))
}

pub(crate) fn open_as(url: &StoreUrl, server: &str) -> Arc<dyn Store> {
    url.open(RETENTION, server)
}

pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// The `n`th instance of a service in the default namespace.
pub(crate) fn record(service: &str, n: u32) -> Record {
    record_in(&Namespace::default(), service, n)
}

pub(crate) fn record_in(namespace: &Namespace, service: &str, n: u32) -> Record {
    let address = format!("10.{}.{}.{}:7070", n >> 16 & 255, n >> 8 & 255, n & 255);
    let registration = Registration {
        check: Check::http("/health").or_defaults(Duration::from_secs(5), Duration::from_secs(1)).unwrap(),
        ..Registration::new(service.parse().unwrap(), address.parse().unwrap())
    };
    let key = Key { namespace: namespace.clone(), id: format!("{service}-{n}").parse().unwrap() };
    Record::registered(&key, &registration, now().as_millis(), now())
}

pub(crate) fn flipped(record: &Record, health: Health, reason: &str, at: Timestamp) -> Record {
    record.seen(health, reason.into(), "server-1".into(), at)
}

/// The record registered, on nothing or on what it was.
pub(crate) fn put(record: &Record) -> Change {
    Change::Asked { record: Arc::new(record.clone()), expected: record.asked.version }
}

/// What was asked for of the record, planned on what it was before.
pub(crate) fn asked(record: &Record, before: &Record) -> Change {
    Change::Asked { record: Arc::new(record.clone()), expected: before.asked.version }
}

/// What was observed of the record.
pub(crate) fn saw(record: &Record) -> Change {
    Change::Observed(Arc::new(record.clone()))
}

pub(crate) fn remove(record: &Record) -> Change {
    let (version, expected) = (record.asked.version + 1, record.asked.version);
    Change::Removed { record: Arc::new(record.clone()), version, expected }
}

/// Its probation is over.
pub(crate) fn forgotten(record: &Record) -> Change {
    Change::Forgotten { record: Arc::new(record.clone()), version: record.asked.version + 1 }
}

/// The same, registered again after it was removed.
pub(crate) fn again(record: &Record) -> Record {
    let version = record.asked.version + 2;
    Record { asked: Asked { version, incarnation: version, ..record.asked }, ..record.clone() }
}

pub(crate) fn shared(records: &[Record]) -> Vec<Arc<Record>> {
    records.iter().cloned().map(Arc::new).collect()
}

pub(crate) fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(Record::key);
    records
}

pub(crate) async fn loaded(store: &Arc<dyn Store>) -> Vec<Record> {
    sorted(store.load().await.unwrap().records)
}

#[track_caller]
pub(crate) fn assert_holds(found: Vec<Record>, expected: &[&Record]) {
    let expected = sorted(expected.iter().copied().cloned().collect());
    assert_eq!(sorted(found), expected);
}

/// The short reason of a store that is unavailable.
#[track_caller]
pub(crate) fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable { reason, .. }) => reason,
        Err(StoreError::Full { reason, .. }) => reason,
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

/// The message of a store that an operator must look at.
#[track_caller]
pub(crate) fn unusable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unusable(message)) => message,
        other => panic!("expected Unusable, got {other:?}"),
    }
}

/// Tries until `attempt` succeeds; fails loudly when it does not within a generous deadline.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < until, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Commits many records.
pub(crate) async fn commit_all(store: &Arc<dyn Store>, records: &[Record]) {
    let batch: Vec<_> = records.iter().map(put).collect();
    patiently(async || store.commit(&batch, &[]).await.map(drop)).await;
}

/// Fills a store that lost everything with many records.
pub(crate) async fn refill_all(store: &Arc<dyn Store>, records: &[Record]) {
    let records = shared(records);
    patiently(async || store.refill(&records, &[]).await.map(drop)).await;
}

/// Redis has a second for a part of what is written, and with much of it that may not be enough on a busy machine. Nothing
/// is written twice.
async fn patiently(mut attempt: impl AsyncFnMut() -> Result<(), StoreError>) {
    let mut tries = 0;
    while let Err(error) = attempt().await {
        tries += 1;
        assert!(matches!(error, StoreError::Unavailable { .. }) && tries < 120, "{error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
