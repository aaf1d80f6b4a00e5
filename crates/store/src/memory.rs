//! The store that forgets: for tests, trials and servers whose instances register again anyway.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use roundsman_protocol::Clock;
use roundsman_registry::{Change, Record};

use crate::{Aside, Description, Foreign, Position, Snapshot, Store, StoreError, stored::evicted_until};

/// Keeps records in memory, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    retention: Duration,
    clock: Clock,
    records: Mutex<HashSet<Slot>>,
}

/// A record under its namespace and id. No map, which would hold those once more.
#[derive(Debug)]
struct Slot(Arc<Record>);

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store that drops evicted records after `retention`.
    pub(crate) fn new(retention: Duration) -> Self {
        Self { retention, clock: Clock::system(), records: Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, HashSet<Slot>> {
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
        records.retain(|Slot(record)| evicted_until(record, self.retention).is_none_or(|until| until > now));
        let records = records.iter().map(|Slot(record)| Record { incarnation: 0, ..Record::clone(record) }).collect();
        Ok(Snapshot { records, ..Snapshot::default() })
    }

    async fn commit(&self, batch: &[Change]) -> Result<Position, StoreError> {
        let mut records = self.records();
        for change in batch {
            match change {
                Change::Put(record) => drop(records.replace(Slot(Arc::clone(record)))),
                Change::Remove(record) => {
                    records.remove(&Slot(Arc::clone(record)));
                }
            }
        }
        Ok(Position::default())
    }

    async fn set_aside(&self) -> Result<Aside, StoreError> {
        Ok(Aside::default())
    }

    async fn missing(&self, _: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
        // Nobody else reaches this memory.
        Ok(Vec::new())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn refill(&self, records: &[Arc<Record>]) -> Result<Position, StoreError> {
        let mut kept = self.records();
        for record in records {
            kept.replace(Slot(Arc::clone(record)));
        }
        Ok(Position::default())
    }

    fn changes(&self, _after: Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
        futures::stream::pending().boxed()
    }
}

// === impl Slot ===

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.0.instance, &other.0.instance);
        one.id == other.id && one.namespace == other.namespace
    }
}

impl Eq for Slot {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.instance.namespace.hash(state);
        self.0.instance.id.hash(state);
    }
}
