//! One namespace: its records, its services as readers see them, and its change log.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use roundsman_protocol::{Address, Cursor, InstanceId, Namespace, Query, ServiceName};

use crate::{
    changes::{Changes, Names},
    edit::{Edit, Effect, Key},
    index::{ById, ByPlace, Index},
    ledger::{Ledger, carry_out},
    log::{Log, LogBudget},
    look::{Look, Snapshot},
    record::Record,
    roster::{Put, Roster, in_order},
    shards::Shards,
    view::{Cell, View},
};

/// One namespace.
#[derive(Debug)]
pub(crate) struct Table {
    /// Where lookups find a service.
    cells: Shards<ServiceName, Cell>,
    books: Mutex<Books>,
    /// That of the log, for those who do not lock it. Everything up to it is shown.
    revision: AtomicU64,
    /// The revision at which a service was last taken out, at first the one before all.
    gone: AtomicU64,
    /// How many records there are, and what they take in memory, about.
    len: AtomicUsize,
    bytes: AtomicUsize,
}

/// What only the writer changes. Readers lock it for as long as it takes to copy a few pointers.
#[derive(Debug)]
struct Books {
    by_id: Index<ById>,
    by_place: Index<ByPlace>,
    /// The services by name, as of the log's revision.
    services: Roster<Arc<View>>,
    log: Log,
}

/// What a batch did to a namespace.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) effects: Vec<Effect>,
    /// The revision before it.
    pub(crate) before: u64,
}

/// What becomes of the records of services.
type Puts<'e> = BTreeMap<&'e ServiceName, Vec<Put<Arc<Record>>>>;

// === impl Table ===

impl Table {
    pub(crate) fn new(revision: u64, log_capacity: usize, budget: Arc<LogBudget>) -> Self {
        let log = Log::new(revision, log_capacity, budget);
        let services = Roster::default();
        let books = Books { by_id: Index::default(), by_place: Index::default(), services, log };
        Self {
            cells: Shards::default(),
            books: Mutex::new(books),
            revision: AtomicU64::new(revision),
            gone: AtomicU64::new(revision),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Calls `f` with a service's cell, without cloning it: lookups come through here.
    pub(crate) fn with_cell<T>(&self, service: &ServiceName, f: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.cells.with(service, f)
    }

    /// All services as they are now, by name.
    pub(crate) fn services(&self) -> Roster<Arc<View>> {
        self.lock().services.clone()
    }

    /// How many services there are.
    pub(crate) fn services_len(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn find(&self, id: &InstanceId) -> Option<Arc<Record>> {
        self.lock().by_id.get(id).cloned()
    }

    pub(crate) fn occupant(&self, service: &ServiceName, address: &Address) -> Option<InstanceId> {
        self.lock().by_place.get((service, address)).map(|record| record.instance.id.clone())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How many bytes they take in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts what came and what went.
    pub(crate) fn weigh(&self, more: usize, less: usize) {
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Carries edits out, and shows them to readers all at once.
    pub(crate) fn apply<'e>(&self, edits: impl Iterator<Item = &'e Edit>) -> Applied {
        let mut books = self.lock();
        let before = books.log.revision();
        let mut effects = Vec::new();
        for edit in edits {
            effects.extend(carry_out(&mut *books, edit));
        }
        if effects.is_empty() {
            return Applied { effects, before };
        }
        let steps = u64::try_from(effects.len()).unwrap_or(u64::MAX);
        self.show(&mut books, &effects, before.saturating_add(steps));
        effects.iter().cloned().for_each(|effect| books.log.push(effect));
        self.note(&books);
        Applied { effects, before }
    }

    /// Takes in records that a store held, without showing them: [`Table::show_loaded`] does, all at once.
    pub(crate) fn take_in<'e>(&self, edits: impl Iterator<Item = &'e Edit>) -> Vec<Effect> {
        let mut books = self.lock();
        edits.flat_map(|edit| carry_out(&mut *books, edit)).collect()
    }

    /// Shows readers what was taken in. Returns the revision before.
    pub(crate) fn show_loaded(&self, effects: &[Effect]) -> u64 {
        let mut books = self.lock();
        let before = books.log.revision();
        self.show(&mut books, effects, before.saturating_add(1));
        books.log.skip();
        self.note(&books);
        before
    }

    /// What a watcher has to learn. `after`: where it stands. Nothing is matched under the lock, and whom nothing concerns
    /// does not take it.
    pub(crate) fn look(&self, epoch: u64, query: &Query, after: Option<Cursor>) -> Look {
        let revision = self.revision();
        let since = after.filter(|after| after.epoch == epoch).map(|after| after.revision);
        if let Some(since) = since.filter(|since| *since <= revision)
            && self.changed(query, since, revision).is_empty()
        {
            return Look::Changes(Changes::none(Cursor { epoch, revision }));
        }
        let books = self.lock();
        let cursor = Cursor { epoch, revision: books.log.revision() };
        let stretch = since.and_then(|since| books.log.after(since).map(|stretch| (since, stretch)));
        let services = if stretch.is_none() { books.services.clone() } else { Roster::default() };
        drop(books);
        match stretch {
            Some((since, stretch)) => {
                Look::Changes(Changes::new(cursor, stretch, self.changed(query, since, cursor.revision)))
            }
            None => Look::Snapshot(Snapshot::of(cursor, services, query)),
        }
    }

    /// The services of a query that changed after `since`, as of `revision` or later. One too many does no harm.
    fn changed(&self, query: &Query, since: u64, revision: u64) -> Names {
        if query.services.is_empty() {
            return if revision > since { Names::All } else { Names::from_iter([]) };
        }
        let changed = query.services.iter().filter(|name| {
            let last = self.cells.with(name, |cell| cell.view().revision);
            last.unwrap_or_else(|| self.gone.load(Ordering::Acquire)) > since
        });
        changed.cloned().collect()
    }

    fn show(&self, books: &mut Books, effects: &[Effect], revision: u64) {
        let mut touched = Puts::new();
        for effect in effects {
            let before = effect.before.iter().map(|record| (record, None));
            for (record, after) in before.chain(effect.after.iter().map(|record| (record, Some(Arc::clone(record))))) {
                let put = Put { key: record.instance.id.clone(), member: after };
                touched.entry(&record.instance.name).or_default().push(put);
            }
        }
        let views = touched.into_iter().map(|(name, mut puts)| {
            in_order(&mut puts);
            let view = match books.services.get(name) {
                Some(view) => view.after(&puts, revision),
                None => View::new(name.clone()).after(&puts, revision),
            };
            let key = view.name.clone();
            Put { key, member: if view.records.is_empty() { None } else { Some(Arc::new(view)) } }
        });
        let views: Vec<_> = views.collect();
        books.services = books.services.after(&views);
        for Put { key, member } in views {
            match member {
                Some(view) => {
                    let shown = self.cells.with(&key, |cell| cell.show(Arc::clone(&view)));
                    if shown.is_none() {
                        self.cells.insert(key, Cell::new(view));
                    }
                }
                None => {
                    self.gone.store(revision, Ordering::Release);
                    self.cells.remove(&key);
                }
            }
        }
    }

    /// What is known without the lock.
    fn note(&self, books: &Books) {
        self.len.store(books.by_id.len(), Ordering::Relaxed);
        self.revision.store(books.log.revision(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Books ===

impl Ledger for Books {
    fn find(&self, key: &Key) -> Option<Arc<Record>> {
        self.by_id.get(&key.id).cloned()
    }

    fn occupant(&self, _: &Namespace, service: &ServiceName, address: &Address) -> Option<InstanceId> {
        self.by_place.get((service, address)).map(|record| record.instance.id.clone())
    }

    fn replace(&mut self, before: Option<&Arc<Record>>, after: Option<&Arc<Record>>) {
        self.by_id.replace(before, after);
        let is_somewhere = |record: &&Arc<Record>| !record.is_blocked();
        self.by_place.replace(before.filter(is_somewhere), after.filter(is_somewhere));
    }
}
