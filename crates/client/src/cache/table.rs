//! What the cache knows: a pure function of the servers' answers, without IO.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{Cursor, Digest, Instance, InstanceId, Query, ServiceName, Update, time};
use tokio::time::Instant;

use super::{
    known::{self, Known},
    missing::Missing,
};
use crate::snapshot::{Snapshot, Stale};

/// The instances of all services that somebody resolves.
///
/// Wherever services are listed, the empty list means all of the namespace, as in a [`Query`].
#[derive(Debug)]
pub(crate) struct Table {
    services: BTreeMap<ServiceName, Service>,
    /// Whether `services` is the whole namespace.
    complete: bool,
    /// Whether that is so by a server's word.
    synced: bool,
    cursor: Option<Cursor>,
    /// Of the server that answered last; outlives the cursor.
    epoch: Option<u64>,
    /// Since when there is no connection on which changes would come.
    stale: Option<Stale>,
    grace: Duration,
    /// Whether somebody wants to see those that are missing.
    keeps_missing: bool,
}

#[derive(Debug, Default)]
struct Service {
    instances: Known,
    /// Since when this very list is doubted: it comes from a file, or the server does not know it.
    stale: Option<Stale>,
    /// The server that is new to us knows none of them; they stay until this moment.
    held_until: Option<Instant>,
    /// Whether a server told it, so that changes can be applied to it.
    synced: bool,
    /// Kept apart: only those who ask for it see them.
    missing: Missing,
}

/// Which services are concerned by a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// All of them.
    All,
    /// These.
    Some(BTreeSet<ServiceName>),
}

// === impl Table ===

impl Table {
    pub(crate) fn new(grace: Duration, now: Instant) -> Self {
        Self {
            services: BTreeMap::new(),
            complete: false,
            synced: false,
            cursor: None,
            epoch: None,
            stale: Some(Stale::since(now)),
            grace,
            keeps_missing: false,
        }
    }

    /// Where the watch goes on from.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The connection is gone: from now on everything may be out of date.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.stale.get_or_insert(Stale::since(now));
    }

    /// What of `wanted` no server has told yet; `None` when it is complete.
    pub(crate) fn missing(&self, wanted: &[ServiceName]) -> Option<Vec<ServiceName>> {
        if wanted.is_empty() {
            return (!self.synced).then(Vec::new);
        }
        let synced = |name: &ServiceName| self.synced || self.services.get(name).is_some_and(|service| service.synced);
        let missing: Vec<_> = wanted.iter().filter(|name| !synced(name)).cloned().collect();
        (!missing.is_empty()).then_some(missing)
    }

    /// The services to which changes can be applied.
    pub(crate) fn followed(&self) -> Vec<ServiceName> {
        self.services.iter().filter(|(_, service)| service.synced).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets everything but who answered last: nobody wants anything.
    pub(crate) fn clear(&mut self, now: Instant) {
        *self = Self { epoch: self.epoch, ..Self::new(self.grace, now) };
    }

    /// Forgets what nobody wants any more.
    pub(crate) fn retain(&mut self, wanted: &[ServiceName]) {
        if wanted.is_empty() {
            return;
        }
        if self.complete {
            // Whoever is not there has no instances, as far as the whole namespace is known.
            for name in wanted {
                let absent = || Service { synced: self.synced, ..Service::default() };
                self.services.entry(name.clone()).or_insert_with(absent);
            }
        }
        self.services.retain(|name, _| wanted.binary_search(name).is_ok());
        (self.complete, self.synced) = (false, false);
    }

    /// Whether instances that a server new to us does not know are to be kept apart, for those who want to see them.
    pub(crate) fn keep_missing(&mut self, keep: bool) {
        self.keeps_missing = keep;
        if !keep {
            self.services.values_mut().for_each(|service| service.missing = Missing::default());
        }
    }

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

    /// What is known of these services, in a few bytes; `None` when that is nothing.
    pub(crate) fn digest(&self, asked: &[ServiceName]) -> Option<Digest> {
        let mut digest = Digest::default();
        for known in self.of(asked).map(|service| service.instances.digest()) {
            digest.count += known.count;
            digest.sum = digest.sum.wrapping_add(known.sum);
            for (sum, more) in digest.parts.iter_mut().zip(&known.parts) {
                *sum = sum.wrapping_add(*more);
            }
        }
        (digest.count > 0).then_some(digest)
    }

    /// Who is known of these services.
    pub(crate) fn ids(&self, asked: &[ServiceName]) -> Vec<InstanceId> {
        self.of(asked).flat_map(|service| service.instances.ids()).cloned().collect()
    }

    /// Lets the watch begin anew, with a snapshot.
    pub(crate) fn begin_anew(&mut self) {
        self.cursor = None;
    }

    /// When to begin anew, because the grace of an empty answer is over and the server is to be asked again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.cursor?;
        let due = |service: &Service| service.held_until.into_iter().chain(service.missing.until()).min();
        self.services.values().filter_map(due).min()
    }

    /// Takes over a list that was saved earlier, where no server has told one. Whether it was of use.
    pub(crate) fn restore(&mut self, name: &ServiceName, instances: &[Arc<Instance>], stale: Stale) -> bool {
        if instances.is_empty() || self.services.contains_key(name) {
            return false;
        }
        let mut restored = Known::default();
        restored.replace(instances.to_vec());
        let service = Service { instances: restored, stale: Some(stale), ..Service::default() };
        self.services.insert(name.clone(), service);
        true
    }

    /// What was restored is all there is, until a server says otherwise.
    pub(crate) fn assume_complete(&mut self) {
        self.complete = true;
    }

    /// What a query matches, or `None` while that is not known; with those that are missing, or without.
    pub(crate) fn seen(&self, query: &Query, missing: bool) -> Option<Snapshot> {
        let nothing = Service::default();
        let mut services = Vec::new();
        if query.services.is_empty() {
            if !self.complete {
                return None;
            }
            services.extend(self.services.values());
        }
        for name in &query.services {
            let absent = self.complete.then_some(&nothing);
            services.push(self.services.get(name).or(absent)?);
        }
        let doubts = services.iter().flat_map(|service| {
            let missing = service.missing.stale().filter(|_| missing);
            service.stale.into_iter().chain(missing)
        });
        let stale = doubts.chain(self.stale).reduce(Stale::older);
        let instances: Vec<_> = if missing {
            services.iter().flat_map(|service| service.with_missing()).collect()
        } else {
            services.iter().flat_map(|service| service.instances.values()).collect()
        };
        let matching = instances.into_iter().filter(|instance| query.matches(instance));
        Some(Snapshot::known(matching.cloned().collect(), stale))
    }

    /// The same without those that are missing.
    #[cfg(test)]
    pub(crate) fn view(&self, query: &Query) -> Option<Snapshot> {
        self.seen(query, false)
    }

    /// The lists that are certain, for the snapshot file.
    pub(crate) fn certain(&self) -> impl Iterator<Item = (&ServiceName, impl Iterator<Item = &Arc<Instance>>)> {
        let certain = self.services.iter().filter(|(_, service)| service.stale.is_none());
        certain.map(|(name, service)| (name, service.instances.values()))
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

    /// The services of a sorted list.
    fn of(&self, asked: &[ServiceName]) -> impl Iterator<Item = &Service> {
        let asked_for = |name: &ServiceName| asked.is_empty() || asked.binary_search(name).is_ok();
        self.services.iter().filter(move |(name, _)| asked_for(name)).map(|(_, service)| service)
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

    /// All that is known and all that is missing, sorted by id.
    fn with_missing(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let both = self.missing.values().chain(self.instances.values());
        both.map(|instance| (&instance.id, instance)).collect::<BTreeMap<_, _>>().into_values()
    }
}

// === impl Touched ===

impl Touched {
    /// Whether the answer to a query may be another one now.
    pub(crate) fn concerns(&self, query: &Query) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) if query.services.is_empty() => !names.is_empty(),
            Self::Some(names) => query.services.iter().any(|name| names.contains(name)),
        }
    }
}
