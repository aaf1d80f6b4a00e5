//! The registry with a batch laid over it, so that each request sees what the earlier ones of its batch do.

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::{Address, InstanceId, Namespace, ServiceName, Timestamp};

use crate::{edit::Key, ledger::Ledger, record::Record, registry::Registry};

/// The registry with a batch laid over it.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    pub(super) registry: &'a Registry,
    pub(super) records: HashMap<Key, Touched>,
    pub(super) addresses: HashMap<(Namespace, ServiceName, Address), Option<InstanceId>>,
}

/// A record that the batch touches: as it was, and as it is.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) first: Option<Arc<Record>>,
    pub(super) now: Option<Arc<Record>>,
}

// === impl Overlay ===

impl Overlay<'_> {
    /// A version after that of a record, and after all that were seen or given out.
    pub(super) fn next_version(&self, known: Option<&Record>, now: Timestamp) -> u64 {
        let later = known.map_or(0, |known| known.asked.version.saturating_add(1));
        let version = self.registry.next_version(now).max(later);
        self.registry.saw_version(version);
        version
    }
}

impl Ledger for Overlay<'_> {
    fn find(&self, key: &Key) -> Option<Arc<Record>> {
        match self.records.get(key) {
            Some(touched) => touched.now.clone(),
            None => self.registry.find(key),
        }
    }

    fn occupant(&self, namespace: &Namespace, service: &ServiceName, address: &Address) -> Option<InstanceId> {
        match self.addresses.get(&(namespace.clone(), service.clone(), address.clone())) {
            Some(occupant) => occupant.clone(),
            None => self.registry.occupant(namespace, service, address),
        }
    }

    fn replace(&mut self, before: Option<&Arc<Record>>, after: Option<&Arc<Record>>) {
        let place = |record: &Arc<Record>| {
            let known = &record.instance;
            (known.namespace.clone(), known.name.clone(), known.address.clone())
        };
        // What is left of a blocked one is nowhere.
        if let Some(before) = before.filter(|before| !before.is_blocked()) {
            self.addresses.insert(place(before), None);
        }
        if let Some(after) = after.filter(|after| !after.is_blocked()) {
            self.addresses.insert(place(after), Some(after.instance.id.clone()));
        }
        if let Some(record) = after.or(before) {
            let touched =
                self.records.entry(record.key()).or_insert_with(|| Touched { first: before.cloned(), now: None });
            touched.now = after.cloned();
        }
    }
}
