//! The store that forgets: for tests, trials and servers whose instances register again anyway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use roundsman_protocol::Clock;
use roundsman_registry::{Change, Key, Record};

use crate::{Description, Foreign, Position, Snapshot, Store, StoreError, stored::evicted_until};

/// Keeps records in memory, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    retention: Duration,
    clock: Clock,
    records: Mutex<HashMap<Key, Arc<Record>>>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store that drops evicted records after `retention`.
    pub(crate) fn new(retention: Duration) -> Self {
        Self { retention, clock: Clock::system(), records: Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Key, Arc<Record>>> {
        // Nothing can panic between two related changes of the map.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> Description {
        Description { kind: "memory", location: "this process".to_owned() }
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        let now = self.clock.now();
        let mut records = self.records();
        records.retain(|_, record| evicted_until(record, self.retention).is_none_or(|until| until > now));
        let records = records.values().map(|record| Record { incarnation: 0, ..Record::clone(record) }).collect();
        Ok(Snapshot { records, position: Position::default() })
    }

    async fn commit(&self, batch: &[Change]) -> Result<Position, StoreError> {
        let mut records = self.records();
        for change in batch {
            match change {
                Change::Put(record) => drop(records.insert(record.key(), Arc::clone(record))),
                Change::Remove(record) => drop(records.remove(&record.key())),
            }
        }
        Ok(Position::default())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn refill(&self, records: &[Arc<Record>]) -> Result<Position, StoreError> {
        self.records().extend(records.iter().map(|record| (record.key(), Arc::clone(record))));
        Ok(Position::default())
    }

    fn changes(&self, _after: Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
        futures::stream::pending().boxed()
    }
}
