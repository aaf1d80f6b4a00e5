//! The registry: all namespaces, one writer, any number of readers.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use roundsman_protocol::{
    Address, DiscoveryError, Host, InstanceId, Namespace, Query, ServiceName, ServiceSummary,
    status::{NamespaceStatus, RecentFlip},
};

use crate::{
    draft::{Draft, Limits},
    edit::{Edit, Effect, Key},
    hub::Hub,
    log::LogBudget,
    look::{Look, Snapshot},
    recent::Recent,
    record::Record,
    shards::Shards,
    table::{Applied, Table},
    view::Cell,
};

/// How many changes a namespace's log keeps, unless the caller says otherwise.
pub const LOG_CAPACITY: usize = 4_096;
/// What the logs of all namespaces may keep in memory, unless the caller says otherwise.
const LOG_BYTES: usize = 64 * 1_024 * 1_024;
/// How many empty namespaces are dropped when one is added.
const DROPPED_AT_ONCE: usize = 64;

/// Who is registered and who is alive.
///
/// Lookups read immutable snapshots and never wait for the writer. There is one writer at a time: whoever calls
/// [`Registry::apply`] sees to that.
#[derive(Debug)]
pub struct Registry {
    pub(crate) epoch: u64,
    pub(crate) hub: Hub,
    tables: Shards<Namespace, Table>,
    /// Those that became empty and are still there.
    empty: Mutex<BTreeSet<Namespace>>,
    /// How many namespaces have an instance.
    populated: AtomicUsize,
    log_capacity: usize,
    log_budget: Arc<LogBudget>,
    /// Where the revisions of a namespace begin: past those of every namespace that became empty and was dropped, so
    /// that a cursor from its former life is never taken for one of its new life.
    retired: AtomicU64,
    incarnations: AtomicU64,
    len: AtomicUsize,
    /// What all records take in memory, about.
    bytes: AtomicUsize,
    /// How many are registered by a host name.
    named: AtomicUsize,
    recent: Recent,
}

impl Registry {
    /// An empty registry. `epoch` must differ from that of every earlier one.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self::with_logs(epoch, LOG_CAPACITY, LOG_BYTES)
    }

    /// An empty registry whose namespaces keep this many changes for watchers, and all of them this many bytes.
    #[must_use]
    pub fn with_logs(epoch: u64, log_capacity: usize, log_bytes: usize) -> Self {
        Self {
            epoch,
            hub: Hub::default(),
            tables: Shards::default(),
            empty: Mutex::default(),
            populated: AtomicUsize::new(0),
            log_capacity,
            log_budget: Arc::new(LogBudget::new(log_bytes)),
            retired: AtomicU64::new(0),
            incarnations: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            named: AtomicUsize::new(0),
            recent: Recent::default(),
        }
    }

    // --- reading ---

    /// The record whose turn it is.
    ///
    /// # Errors
    /// When the service has no instance, or none that is handed out.
    pub fn get(&self, namespace: &Namespace, service: &ServiceName) -> Result<Arc<Record>, DiscoveryError> {
        let registered = |cell: &Cell| cell.view().records.tally().registered();
        let picked = self
            .tables
            .with(namespace, |table| table.with_cell(service, |cell| cell.next().ok_or_else(|| registered(cell))));
        match picked.flatten() {
            None => Err(DiscoveryError::NoSuchService { service: service.clone() }),
            Some(Err(registered)) => Err(DiscoveryError::NonePassing { service: service.clone(), registered }),
            Some(Ok(record)) => Ok(record),
        }
    }

    /// The services of a query as they are now.
    #[must_use]
    pub fn snapshot(&self, namespace: &Namespace, query: &Query) -> Snapshot {
        match self.look(namespace, query, None) {
            Look::Snapshot(snapshot) => snapshot,
            Look::Changes(changes) => Snapshot::empty(changes.cursor()),
        }
    }

    /// Whether anybody is registered or on probation under this name.
    #[must_use]
    pub fn has_service(&self, namespace: &Namespace, service: &ServiceName) -> bool {
        self.with_cell(namespace, service, |_| ()).is_some()
    }

    /// The name as the registry holds it, so that its instances share one text.
    #[must_use]
    pub fn shared_name(&self, namespace: &Namespace, service: ServiceName) -> ServiceName {
        self.with_cell(namespace, &service, |cell| cell.view().name.clone()).unwrap_or(service)
    }

    /// How many services a namespace has.
    #[must_use]
    pub fn services_of(&self, namespace: &Namespace) -> usize {
        self.tables.with(namespace, |table| table.services_len()).unwrap_or(0)
    }

    /// All services of a namespace, by name.
    #[must_use]
    pub fn services(&self, namespace: &Namespace) -> Vec<ServiceSummary> {
        self.table(namespace).map_or_else(Vec::new, |table| summaries(&table))
    }

    /// All services of one namespace, or of all, by name.
    #[must_use]
    pub fn overview(&self, only: Option<&Namespace>) -> Vec<NamespaceStatus> {
        let mut tables = match only {
            Some(only) => self.table(only).map(|table| (only.clone(), table)).into_iter().collect(),
            None => self.tables.entries(),
        };
        tables.retain(|(_, table)| !table.is_empty());
        tables.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let status =
            |(namespace, table): (Namespace, Arc<Table>)| NamespaceStatus { services: summaries(&table), namespace };
        tables.into_iter().map(status).collect()
    }

    /// One record.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<Record>> {
        self.table(&key.namespace)?.find(&key.id)
    }

    /// All records, for a store that has to be filled again.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        let mut all = Vec::with_capacity(self.len());
        for (_, table) in self.tables.entries() {
            all.extend(table.services().iter().flat_map(|view| view.records.iter()).cloned());
        }
        all
    }

    /// The latest flips, newest first, of one namespace or of all.
    #[must_use]
    pub fn recent(&self, only: Option<&Namespace>) -> Vec<RecentFlip> {
        self.recent.newest_first(only)
    }

    /// How many instances there are, those on probation included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// What all instances take in memory, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many instances are registered by a host name instead of an IP address.
    #[must_use]
    pub fn named(&self) -> usize {
        self.named.load(Ordering::Relaxed)
    }

    /// Whether there is no instance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watches wait at this moment.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.hub.count()
    }

    /// How many namespaces have an instance.
    pub(crate) fn namespaces(&self) -> usize {
        self.populated.load(Ordering::Relaxed)
    }

    /// How many instances a namespace has, those on probation included.
    pub(crate) fn len_of(&self, namespace: &Namespace) -> usize {
        self.tables.with(namespace, |table| table.len()).unwrap_or(0)
    }

    /// What the instances of a namespace take in memory, about.
    pub(crate) fn bytes_of(&self, namespace: &Namespace) -> usize {
        self.tables.with(namespace, |table| table.bytes()).unwrap_or(0)
    }

    pub(crate) fn has_namespace(&self, namespace: &Namespace) -> bool {
        self.len_of(namespace) > 0
    }

    pub(crate) fn occupant(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
        address: &Address,
    ) -> Option<InstanceId> {
        self.table(namespace)?.occupant(service, address)
    }

    pub(crate) fn table(&self, namespace: &Namespace) -> Option<Arc<Table>> {
        self.tables.get(namespace)
    }

    fn with_cell<T>(&self, namespace: &Namespace, service: &ServiceName, f: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.tables.with(namespace, |table| table.with_cell(service, f)).flatten()
    }

    /// Where an empty namespace stands.
    pub(crate) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    // --- writing ---

    /// Starts to plan a batch.
    #[must_use]
    pub fn draft(&self, limits: Limits) -> Draft<'_> {
        Draft::new(self, limits)
    }

    /// A number for a new life of an instance, never given out before.
    #[must_use]
    pub fn next_incarnation(&self) -> u64 {
        self.incarnations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes in what a store held, before anybody reads.
    pub fn load(&self, records: Vec<Record>) -> Vec<Arc<Record>> {
        let adopt = |record| Edit::Adopt { record: Arc::new(record), incarnation: self.next_incarnation() };
        let edits: Vec<Edit> = records.into_iter().map(adopt).collect();
        let effects = self.carry_out(&edits, false);
        effects.into_iter().filter_map(|effect| effect.after).collect()
    }

    /// Carries edits out, shows them to readers and wakes the watchers whom they concern.
    pub fn apply(&self, edits: &[Edit]) -> Vec<Effect> {
        let effects = self.carry_out(edits, true);
        self.recent.remember(&effects);
        effects
    }

    fn carry_out(&self, edits: &[Edit], logged: bool) -> Vec<Effect> {
        let mut by_namespace: BTreeMap<Namespace, Vec<&Edit>> = BTreeMap::new();
        for edit in edits {
            by_namespace.entry(edit.key().namespace).or_default().push(edit);
        }
        let mut all = Vec::new();
        for (namespace, edits) in by_namespace {
            let table = self.table(&namespace).unwrap_or_else(|| self.add_table(&namespace));
            let was_empty = table.is_empty();
            let Applied { effects, before } = table.apply(edits.into_iter(), logged);
            self.count(&namespace, was_empty, table.is_empty());
            if effects.is_empty() {
                continue;
            }
            let added = effects.iter().filter(|effect| effect.before.is_none() && effect.after.is_some()).count();
            let removed = effects.iter().filter(|effect| effect.after.is_none()).count();
            self.account(&table, &effects);
            self.len.fetch_add(added, Ordering::Relaxed);
            self.len.fetch_sub(removed, Ordering::Relaxed);
            let records = effects.iter().flat_map(|effect| effect.before.iter().chain(&effect.after));
            let services: HashSet<&ServiceName> = records.map(|record| &record.instance.name).collect();
            self.hub.wake(&namespace, before, services.into_iter());
            all.extend(effects);
        }
        all
    }

    /// Counts the namespaces that have an instance, and notes those that have none.
    fn count(&self, namespace: &Namespace, was_empty: bool, is_empty: bool) {
        match (was_empty, is_empty) {
            (true, false) => drop(self.populated.fetch_add(1, Ordering::Relaxed)),
            (false, true) => drop(self.populated.fetch_sub(1, Ordering::Relaxed)),
            (true, true) | (false, false) => {}
        }
        if is_empty {
            self.empty.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        }
    }

    /// Keeps the sums over all records, and over those of a namespace.
    fn account(&self, table: &Table, effects: &[Effect]) {
        let sums = |records: Vec<&Arc<Record>>| {
            let named = records.iter().filter(|record| matches!(record.instance.address.host(), Host::Name(_))).count();
            (records.iter().map(|record| record.bytes()).sum::<usize>(), named)
        };
        let (more, named_more) = sums(effects.iter().filter_map(|effect| effect.after.as_ref()).collect());
        let (less, named_less) = sums(effects.iter().filter_map(|effect| effect.before.as_ref()).collect());
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
        self.named.fetch_add(named_more, Ordering::Relaxed);
        self.named.fetch_sub(named_less, Ordering::Relaxed);
        table.weigh(more, less);
    }

    /// Adds a namespace, and drops some of those that are empty: not when they become so, since their watchers still want
    /// to be told who left and why.
    fn add_table(&self, namespace: &Namespace) -> Arc<Table> {
        self.drop_empty();
        let table = Arc::new(Table::new(self.retired(), self.log_capacity, Arc::clone(&self.log_budget)));
        self.tables.insert(namespace.clone(), Arc::clone(&table));
        table
    }

    fn drop_empty(&self) {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DROPPED_AT_ONCE {
            let Some(namespace) = empty.pop_first() else { return };
            if let Some(table) = self.table(&namespace).filter(|table| table.is_empty()) {
                self.retired.fetch_max(table.revision(), Ordering::AcqRel);
                self.tables.remove(&namespace);
            }
        }
    }
}

/// The services of a namespace, by name.
fn summaries(table: &Table) -> Vec<ServiceSummary> {
    table.services().iter().map(|view| view.summary()).collect()
}
