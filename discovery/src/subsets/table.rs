//! Which groups there are, and which of them have something noted down.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::AtomicUsize},
};

use roundsman_protocol::{Instance, Namespace, ServiceName};

use super::{Key, group::Group};

/// The groups by namespace and service.
#[derive(Debug, Default)]
pub(super) struct Table {
    namespaces: HashMap<Namespace, Tenant>,
    /// Those that have something noted down since they were last taken, each once.
    noted: Vec<Arc<Group>>,
}

/// The groups of a namespace.
#[derive(Debug, Default)]
struct Tenant {
    services: HashMap<ServiceName, Vec<Arc<Group>>>,
    len: usize,
    /// How many clients all of them have.
    clients: Arc<AtomicUsize>,
}

// === impl Table ===

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// How many groups a namespace has.
    pub(super) fn len_of(&self, namespace: &Namespace) -> usize {
        self.namespaces.get(namespace).map_or(0, |tenant| tenant.len)
    }

    pub(super) fn find(&self, key: &Key) -> Option<Arc<Group>> {
        let groups = self.namespaces.get(&key.namespace)?.services.get(key.service()?)?;
        groups.iter().find(|group| group.key == *key).cloned()
    }

    /// All groups, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Group>> {
        self.namespaces.values().flat_map(|tenant| tenant.services.values().flatten()).cloned().collect()
    }

    /// Adds a group, which is given the count of clients of its namespace.
    pub(super) fn add(&mut self, key: &Key, new: impl FnOnce(Arc<AtomicUsize>) -> Group) -> Arc<Group> {
        let tenant = self.namespaces.entry(key.namespace.clone()).or_default();
        let group = Arc::new(new(Arc::clone(&tenant.clients)));
        if let Some(service) = key.service() {
            tenant.services.entry(service.clone()).or_default().push(Arc::clone(&group));
            tenant.len += 1;
        }
        group
    }

    /// Takes a group out.
    pub(super) fn remove(&mut self, group: &Group) {
        let Some(tenant) = self.namespaces.get_mut(&group.key.namespace) else { return };
        let Some(service) = group.key.service() else { return };
        if let Some(groups) = tenant.services.get_mut(service) {
            let before = groups.len();
            groups.retain(|other| !std::ptr::eq(Arc::as_ptr(other), group));
            tenant.len -= before - groups.len();
            if groups.is_empty() {
                tenant.services.remove(service);
            }
        }
        if tenant.len == 0 {
            self.namespaces.remove(&group.key.namespace);
        }
    }

    /// Notes down that an instance is, or was, like this. Returns whether that concerns any group.
    pub(super) fn note(&mut self, instance: &Instance) -> bool {
        let tenant = self.namespaces.get(&instance.namespace);
        let Some(groups) = tenant.and_then(|tenant| tenant.services.get(&instance.name)) else { return false };
        let mut any = false;
        for group in groups.iter().filter(|group| group.note(instance)) {
            any = true;
            if group.mark_noted(true) {
                self.noted.push(Arc::clone(group));
            }
        }
        any
    }

    /// Those that have something noted down.
    pub(super) fn take_noted(&mut self) -> Vec<Arc<Group>> {
        let noted = mem::take(&mut self.noted);
        for group in &noted {
            group.mark_noted(false);
        }
        noted
    }
}
