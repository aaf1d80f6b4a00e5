//! How answers change the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roundsman_protocol::{Instance, ServiceName, Update, time};
use tokio::time::Instant;

use super::{Service, Table, Touched};
use crate::{cache::known, snapshot::Stale};

// === impl Table ===

impl Table {
    /// The answer to the watch of everything that is wanted.
    pub(crate) fn apply(&mut self, asked: &[ServiceName], update: Update, now: Instant) -> Touched {
        let new_server = self.epoch != Some(update.cursor.epoch);
        let began = self.cursor.is_none();
        self.cursor = Some(update.cursor);
        self.epoch = Some(update.cursor.epoch);
        let touched = if began || new_server || update.snapshot || !update.parts.is_empty() {
            let instances = self.whole(asked, update);
            self.replace(asked, instances, new_server, now)
        } else {
            self.change(update)
        };
        // Only now: what is held from here on has been stale since the connection was lost.
        if self.stale.take().is_some() { Touched::All } else { Touched::Some(touched) }
    }

    /// The answer about services that join those that are watched.
    ///
    /// A server tells what differs between the cursor and now, not what happened in between. So one watch can go on
    /// for both only if they stand at the same moment; otherwise it begins anew with a snapshot of all.
    pub(crate) fn add(&mut self, asked: &[ServiceName], update: Update, now: Instant) -> Touched {
        if self.cursor != Some(update.cursor) {
            self.cursor = None;
        }
        let instances = self.whole(asked, update);
        Touched::Some(self.replace(asked, instances, false, now))
    }

    /// Everything there is of these services by an update that may tell only what is another than was known: of the parts
    /// that differ it tells all, and nothing has changed in the others.
    fn whole(&self, asked: &[ServiceName], update: Update) -> Vec<Arc<Instance>> {
        if update.snapshot {
            return update.instances;
        }
        let known = || self.of(asked).flat_map(|service| service.instances.values());
        let mut other: BTreeSet<_> = known::missing(&update, known()).into_iter().map(|gone| gone.id).collect();
        other.extend(update.removed.into_iter().map(|gone| gone.id));
        other.extend(update.instances.iter().map(|instance| instance.id.clone()));
        let mut all: Vec<_> = known().filter(|known| !other.contains(&known.id)).cloned().collect();
        all.extend(update.instances);
        all
    }

    fn replace(
        &mut self,
        asked: &[ServiceName],
        instances: Vec<Arc<Instance>>,
        new_server: bool,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let mut told: BTreeMap<ServiceName, Vec<Arc<Instance>>> = BTreeMap::new();
        for instance in instances {
            told.entry(instance.name.clone()).or_default().push(instance);
        }
        let mut touched: BTreeSet<_> = told.keys().cloned().collect();
        if asked.is_empty() {
            (self.complete, self.synced) = (true, true);
            touched.extend(self.services.keys().cloned());
        }
        touched.extend(asked.iter().cloned());
        for name in &touched {
            let service = self.services.entry(name.clone()).or_default();
            let doubtful = new_server || !service.synced;
            service.synced = true;
            if new_server && self.keeps_missing {
                let stale = service.stale.or(self.stale).unwrap_or(Stale::since(now));
                service.missing.begin(service.instances.values(), stale, now + self.grace);
            }
            service.missing.give_up(now);
            told.get(name).into_iter().flatten().for_each(|instance| service.missing.back(instance));
            match told.remove(name) {
                Some(instances) => service.replace(instances),
                None if service.held_until.is_some_and(|until| until > now) && !new_server => {}
                None if doubtful && !service.instances.is_empty() => {
                    // A server that has lost its memory knows nobody until everybody has registered again.
                    let (kept, grace) = (service.instances.len(), time::display(self.grace));
                    tracing::warn!(service = %name, kept, grace, "a server that is new to us knows none; keeping the list for now");
                    service.stale.get_or_insert(self.stale.unwrap_or(Stale::since(now)));
                    service.held_until = Some(now + self.grace);
                }
                None => service.replace(Vec::new()),
            }
        }
        touched
    }

    fn change(&mut self, update: Update) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        for removed in update.removed {
            let Some(service) = self.services.get_mut(&removed.name) else { continue };
            let known = service.instances.remove(&removed.id).is_some();
            if known && service.instances.is_empty() {
                service.replace(Vec::new());
            }
            if service.missing.gone(&removed) || known {
                touched.insert(removed.name);
            }
        }
        for instance in update.instances {
            let service = self.services.entry(instance.name.clone()).or_default();
            if service.held_until.is_some() {
                // They are coming back: from here on the server knows better.
                service.replace(Vec::new());
            }
            service.synced = true;
            touched.insert(instance.name.clone());
            // An id is unique: one that registered under another name has left the old one.
            for (name, other) in self.services.iter_mut().filter(|(name, _)| **name != instance.name) {
                let missed = other.missing.moved(&instance.id);
                if other.instances.remove(&instance.id).is_some() || missed {
                    touched.insert(name.clone());
                }
            }
            let service = self.services.entry(instance.name.clone()).or_default();
            service.missing.back(&instance);
            service.instances.insert(instance);
        }
        touched
    }
}

// === impl Service ===

impl Service {
    fn replace(&mut self, instances: Vec<Arc<Instance>>) {
        self.instances.replace(instances);
        (self.stale, self.held_until) = (None, None);
    }
}
