//! One namespace: its records, its services as readers see them, and its change log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use roundsman_protocol::{Address, Cursor, InstanceId, Namespace, Query, ServiceName};

use crate::{
    edit::{Edit, Effect, Key},
    index::{ById, ByPlace, Index},
    ledger::{Ledger, carry_out},
    log::{Log, LogBudget, Named},
    look::{Changes, Look, Snapshot},
    record::Record,
    view::{Cell, View},
};

/// One namespace.
#[derive(Debug)]
pub(crate) struct Table {
    services: ArcSwap<HashMap<ServiceName, Arc<Cell>>>,
    books: Mutex<Books>,
    /// What its records take in memory, about.
    bytes: AtomicUsize,
}

/// What only the writer changes. Watches lock it for as long as it takes to read the log.
#[derive(Debug)]
struct Books {
    by_id: Index<ById>,
    by_place: Index<ByPlace>,
    log: Log,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(revision: u64, log_capacity: usize, budget: Arc<LogBudget>) -> Self {
        let log = Log::new(revision, log_capacity, budget);
        let books = Books { by_id: Index::default(), by_place: Index::default(), log };
        Self { services: ArcSwap::default(), books: Mutex::new(books), bytes: AtomicUsize::new(0) }
    }

    pub(crate) fn cell(&self, service: &ServiceName) -> Option<Arc<Cell>> {
        self.services.load().get(service).cloned()
    }

    /// Calls `f` with a service's cell, without cloning it: lookups come through here.
    pub(crate) fn with_cell<T>(&self, service: &ServiceName, f: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.services.load().get(service).map(|cell| f(cell))
    }

    /// The cells that a query is about, sorted by service.
    pub(crate) fn cells(&self, query: &Query) -> Vec<Arc<Cell>> {
        let services = self.services.load();
        let mut chosen: BTreeMap<&ServiceName, &Arc<Cell>> = BTreeMap::new();
        if query.services.is_empty() {
            chosen.extend(services.iter());
        } else {
            chosen.extend(query.services.iter().filter_map(|name| services.get_key_value(name)));
        }
        chosen.into_values().cloned().collect()
    }

    /// How many services there are.
    pub(crate) fn services(&self) -> usize {
        self.services.load().len()
    }

    pub(crate) fn find(&self, id: &InstanceId) -> Option<Arc<Record>> {
        self.lock().by_id.get(id).cloned()
    }

    pub(crate) fn occupant(&self, service: &ServiceName, address: &Address) -> Option<InstanceId> {
        self.lock().by_place.get((service, address)).map(|record| record.instance.id.clone())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().log.revision()
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
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

    /// Carries edits out, and shows them to readers all at once. `logged`: whether watchers may get them one by one.
    pub(crate) fn apply<'e>(&self, edits: impl Iterator<Item = &'e Edit>, logged: bool) -> Vec<Effect> {
        let mut books = self.lock();
        let mut effects = Vec::new();
        for edit in edits {
            effects.extend(carry_out(&mut *books, edit));
        }
        self.show(&effects);
        if logged {
            effects.iter().cloned().for_each(|effect| books.log.push(effect));
        } else if !effects.is_empty() {
            books.log.skip();
        }
        effects
    }

    /// What a watcher has to learn. `after`: where it stands. Nothing is matched under the lock: it is held for as long as
    /// it takes to copy pointers.
    pub(crate) fn look(&self, epoch: u64, query: &Query, after: Option<Cursor>) -> Look {
        let named = Named::of(query);
        let books = self.lock();
        let cursor = Cursor { epoch, revision: books.log.revision() };
        if let Some(effects) = after.and_then(|after| books.log.after(epoch, after, &named)) {
            return Look::Changes(Changes { cursor, effects });
        }
        // Still under the lock, so that the snapshot is that of the cursor.
        let views = self.views(query);
        drop(books);
        Look::Snapshot(Snapshot::new(cursor, views))
    }

    /// The views that a query is about, in no order.
    fn views(&self, query: &Query) -> Vec<Arc<View>> {
        let services = self.services.load();
        if query.services.is_empty() {
            return services.values().map(|cell| cell.current()).collect();
        }
        query.services.iter().filter_map(|name| services.get(name)).map(|cell| cell.current()).collect()
    }

    fn show(&self, effects: &[Effect]) {
        let mut touched: BTreeMap<&ServiceName, Vec<&Effect>> = BTreeMap::new();
        for effect in effects {
            let before = effect.before.as_ref().map(|record| &record.instance.name);
            let after = effect.after.as_ref().map(|record| &record.instance.name);
            for service in before.into_iter().chain(after.filter(|name| before != Some(name))) {
                touched.entry(service).or_default().push(effect);
            }
        }
        let services = self.services.load_full();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (service, effects) in touched {
            let cell = services.get(service).cloned().unwrap_or_else(|| {
                let cell = Arc::new(Cell::new(service.clone()));
                new.push((service.clone(), Arc::clone(&cell)));
                cell
            });
            if !cell.show(&effects) {
                gone.push(service);
            }
        }
        if !new.is_empty() || !gone.is_empty() {
            let mut services = HashMap::clone(&services);
            services.extend(new);
            gone.into_iter().for_each(|service| drop(services.remove(service)));
            self.services.store(Arc::new(services));
        }
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
        if let Some(before) = before {
            self.by_id.remove(before);
            self.by_place.remove(before);
        }
        if let Some(after) = after {
            self.by_id.insert(after);
            self.by_place.insert(after);
        }
    }
}
