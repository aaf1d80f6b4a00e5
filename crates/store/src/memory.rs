//! The store that forgets: for tests, trials and servers whose instances register again anyway.

use std::{
    collections::{HashSet, VecDeque},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use roundsman_protocol::{Clock, Event, HistoryPage, HistoryQuery, Namespace, Timestamp};
use roundsman_registry::{Change, Record};

use crate::{
    Aside, Committed, Description, Durable, Foreign, Keep, Position, Replicator, Snapshot, StoreError,
    stored::evicted_until,
};

/// The part of the history that is kept here: what has to fit into memory is shorter than what fits on a disk.
const SHARE: u64 = 10;

/// Keeps records in memory, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    retention: Duration,
    clock: Clock,
    keep: Keep,
    records: Mutex<HashSet<Slot>>,
    history: Mutex<History>,
}

/// The last events, oldest first.
#[derive(Debug, Default)]
struct History {
    events: VecDeque<Event>,
    /// The number of the first one: bookmarks count them.
    first: u64,
    /// The last one that was dropped, and whether there were too many.
    cut: Option<Event>,
}

/// A record under its namespace and id. No map, which would hold those once more.
#[derive(Debug)]
struct Slot(Arc<Record>);

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store that drops evicted records after `retention`.
    pub(crate) fn new(retention: Duration, keep: Keep) -> Self {
        let keep = Keep { events: keep.events.div_ceil(SHARE), ..keep };
        Self { retention, keep, clock: Clock::system(), records: Mutex::default(), history: Mutex::default() }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, HashSet<Slot>> {
        // Nothing can panic between two related changes of the map.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Durable for MemoryStore {
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

    async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        self.history().append(events, &self.keep, self.clock.now());
        let mut records = self.records();
        for change in changes {
            match change {
                Change::Put(record) => drop(records.replace(Slot(Arc::clone(record)))),
                Change::Remove(record) => {
                    records.remove(&Slot(Arc::clone(record)));
                }
            }
        }
        Ok(Committed::default())
    }

    async fn set_aside(&self) -> Result<Aside, StoreError> {
        Ok(Aside::default())
    }

    async fn missing(&self, _: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
        // Nobody else reaches this memory.
        Ok(Vec::new())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.history().trim(&self.keep, self.clock.now());
        Ok(())
    }

    async fn refill(&self, records: &[Arc<Record>]) -> Result<Position, StoreError> {
        let mut kept = self.records();
        for record in records {
            kept.replace(Slot(Arc::clone(record)));
        }
        Ok(Position::default())
    }

    async fn history(&self, namespace: &Namespace, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        Ok(self.history().read(namespace, query))
    }
}

impl Replicator for MemoryStore {
    fn changes(&self, _after: Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
        futures::stream::pending().boxed()
    }
}

// === impl History ===

impl History {
    fn append(&mut self, events: &[Event], keep: &Keep, now: Timestamp) {
        self.events.extend(events.iter().cloned());
        self.trim(keep, now);
    }

    fn trim(&mut self, keep: &Keep, now: Timestamp) {
        let (most, oldest) = (usize::try_from(keep.events).unwrap_or(usize::MAX), keep.oldest(now));
        while let Some(event) = self.events.front() {
            let too_many = self.events.len() > most;
            if !too_many && event.at >= oldest {
                return;
            }
            self.cut = Some(Event::cut(None, event.at, keep.reason(too_many), "".into()));
            self.first += 1;
            self.events.pop_front();
        }
    }

    fn read(&self, namespace: &Namespace, query: &HistoryQuery) -> HistoryPage {
        let end = query.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(u64::MAX);
        let here = |event: &Event| event.namespace.as_ref().is_none_or(|found| found == namespace);
        let mut page = HistoryPage::default();
        for (place, event) in self.events.iter().enumerate().rev() {
            let number = self.first + u64::try_from(place).unwrap_or(u64::MAX);
            if number >= end || !here(event) || !query.matches(event) {
                continue;
            }
            if page.events.len() == query.most() {
                page.next = Some((number + 1).to_string().into());
                return page;
            }
            page.events.push(event.clone());
        }
        // In front of the first one stands what is missing; it is no more than one mark beyond the limit.
        page.events.extend(self.cut.clone().filter(|cut| query.matches(cut)));
        page
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
