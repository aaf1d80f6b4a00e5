//! The registry: all namespaces, one writer, any number of readers.

mod loading;
mod writing;

pub use self::loading::{Loaded, Loading};

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use roundsman_protocol::{
    Address, DiscoveryError, InstanceId, Namespace, Query, ServiceName, ServiceSummary,
    status::{NamespaceStatus, RecentFlip},
};

use crate::{
    edit::Key,
    hub::{Counted, Hub},
    look::{Look, Snapshot},
    namespaces::Namespaces,
    recent::Recent,
    record::Record,
    table::Table,
    view::Cell,
};

/// How many changes a namespace's log keeps, unless the caller says otherwise.
pub const LOG_CAPACITY: usize = 4_096;
/// What the logs of all namespaces may keep in memory, unless the caller says otherwise.
const LOG_BYTES: usize = 64 * 1_024 * 1_024;

/// Who is registered and who is alive.
///
/// Lookups read immutable snapshots and never wait for the writer. There is one writer at a time: whoever calls
/// [`Registry::apply`] sees to that.
#[derive(Debug)]
pub struct Registry {
    pub(crate) epoch: u64,
    pub(crate) hub: Hub,
    namespaces: Namespaces,
    /// The last version that was given out, or seen.
    versions: AtomicU64,
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
            namespaces: Namespaces::new(log_capacity, log_bytes),
            versions: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            named: AtomicUsize::new(0),
            recent: Recent::default(),
        }
    }

    /// The record whose turn it is.
    ///
    /// # Errors
    /// When the service has no instance, or none that is handed out.
    pub fn get(&self, namespace: &Namespace, service: &ServiceName) -> Result<Arc<Record>, DiscoveryError> {
        let registered = |cell: &Cell| cell.view().records.tally().registered();
        let picked = self
            .namespaces
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
        self.namespaces.with(namespace, |table| table.services_len()).unwrap_or(0)
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
            Some(only) => {
                self.table(only).filter(|table| !table.is_empty()).map(|t| (only.clone(), t)).into_iter().collect()
            }
            None => self.namespaces.populated(),
        };
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
        for (_, table) in self.namespaces.populated() {
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

    /// Counts a watch that waits for something else than this registry's wake, such as its share of a service.
    #[must_use]
    pub fn count_watch(&self) -> Counted<'_> {
        self.hub.count_one()
    }

    /// How many namespaces have an instance.
    pub(crate) fn namespaces(&self) -> usize {
        self.namespaces.populated_len()
    }

    /// How many instances a namespace has, those on probation included.
    pub(crate) fn len_of(&self, namespace: &Namespace) -> usize {
        self.namespaces.with(namespace, |table| table.len()).unwrap_or(0)
    }

    /// What the instances of a namespace take in memory, about.
    pub(crate) fn bytes_of(&self, namespace: &Namespace) -> usize {
        self.namespaces.with(namespace, |table| table.bytes()).unwrap_or(0)
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
        self.namespaces.get(namespace)
    }

    fn with_cell<T>(&self, namespace: &Namespace, service: &ServiceName, f: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.namespaces.with(namespace, |table| table.with_cell(service, f)).flatten()
    }

    /// Where an empty namespace stands.
    pub(crate) fn retired(&self) -> u64 {
        self.namespaces.retired()
    }
}

/// The services of a namespace, by name.
fn summaries(table: &Table) -> Vec<ServiceSummary> {
    table.services().iter().map(|view| view.summary()).collect()
}
