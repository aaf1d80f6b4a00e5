//! The store that forgets: for tests, trials and servers whose instances register again anyway.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use roundsman_protocol::{Clock, Event, HistoryPage, HistoryQuery, Namespace, Timestamp};
use roundsman_registry::{Change, Key, Known, Record, Ruling, Tombstone, Tombstones};

use crate::{
    Aside, Committed, Description, Durable, Foreign, Keep, Position, Replicator, Snapshot, Standing, StoreError,
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
    kept: Mutex<Kept>,
    history: Mutex<History>,
}

/// What there is, and what is gone.
#[derive(Debug, Default)]
struct Kept {
    records: HashSet<Slot>,
    removed: Tombstones,
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
        Self { retention, keep, clock: Clock::system(), kept: Mutex::default(), history: Mutex::default() }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing can panic between two related changes of it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Durable for MemoryStore {
    fn describe(&self) -> Description {
        Description { kind: "memory", location: "this process".to_owned() }
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        let now = self.clock.now();
        let mut kept = self.kept();
        kept.records.retain(|Slot(record)| evicted_until(record, self.retention).is_none_or(|until| until > now));
        let records = kept.records.iter().map(|Slot(record)| Record::clone(record)).collect();
        Ok(Snapshot { records, removed: kept.removed.all(), ..Snapshot::default() })
    }

    async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        let now = self.clock.now();
        let mut groups: BTreeMap<&Namespace, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            groups.entry(&change.record().instance.namespace).or_default().push(change);
        }
        let mut committed = Committed::default();
        for (namespace, changes) in groups {
            match self.kept().carry_out(&changes, now) {
                Ok(left) => committed.left.extend(left),
                Err(standings) => drop(committed.failed.insert(namespace.clone(), StoreError::Conflict { standings })),
            }
        }
        let failed =
            |event: &&Event| event.namespace.as_ref().is_some_and(|found| committed.failed.contains_key(found));
        let told: Vec<Event> = events.iter().filter(|event| !failed(event)).cloned().collect();
        self.history().append(&told, &self.keep, now);
        Ok(committed)
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

    async fn refill(&self, records: &[Arc<Record>], removed: &[Tombstone]) -> Result<Position, StoreError> {
        let (now, mut kept) = (self.clock.now(), self.kept());
        for record in records {
            kept.records.replace(Slot(Arc::clone(record)));
        }
        removed.iter().for_each(|tombstone| kept.removed.add(tombstone.clone(), now));
        let Kept { records, removed } = &mut *kept;
        records.retain(|Slot(record)| record.asked.version > removed.version(&record.key()));
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

// === impl Kept ===

impl Kept {
    /// Carries out the changes of one namespace, or none of them. Tells who is not forgotten after all; an error tells what
    /// stands in their way.
    fn carry_out(&mut self, changes: &[&Change], now: Timestamp) -> Result<Vec<Key>, Vec<Standing>> {
        let (mut before, mut buried, mut in_the_way) = (Vec::new(), HashMap::new(), Vec::new());
        let mut left = Vec::new();
        for change in changes {
            let (key, slot) = (change.key(), Slot(Arc::clone(change.record())));
            let known = self.records.get(&slot).map(|Slot(known)| Arc::clone(known));
            let gone = buried.get(&key).copied().unwrap_or_else(|| self.removed.version(&key));
            let same = || known.as_ref().is_some_and(|known| known.asks_the_same(change.record()));
            match change.ruling(known.as_deref().map(Known::from), gone, same) {
                Ruling::Put(part) => drop(self.records.replace(Slot(part.merged(change.record(), known.as_ref())))),
                Ruling::Bury(version) => {
                    self.records.remove(&slot);
                    buried.insert(key, version);
                }
                Ruling::Leave => left.extend(change.is_forgotten().then_some(key)),
                Ruling::Conflict => in_the_way.push(key),
            }
            before.push((slot, known));
        }
        if in_the_way.is_empty() {
            buried.into_iter().for_each(|(key, version)| self.removed.add(Tombstone { key, version }, now));
            return Ok(left);
        }
        for (slot, known) in before.iter().rev() {
            match known {
                Some(known) => drop(self.records.replace(Slot(Arc::clone(known)))),
                None => drop(self.records.take(slot)),
            }
        }
        let standing = |key: Key| {
            let found =
                before.iter().find(|(slot, _)| slot.0.key() == key).and_then(|(slot, _)| self.records.get(slot));
            let (found, gone) = (found.map(|Slot(record)| Arc::clone(record)), self.removed.version(&key));
            Standing::of(key, found, gone)
        };
        Err(in_the_way.into_iter().map(standing).collect())
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
