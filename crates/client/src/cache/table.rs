//! What the cache knows: a pure function of the servers' answers, without IO.

#[cfg(test)]
pub(crate) mod tests;
mod updating;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{Cursor, Digest, Instance, InstanceId, Query, ServiceName};
use tokio::time::Instant;

use super::{known::Known, missing::Missing};
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

    /// The services of a sorted list.
    fn of(&self, asked: &[ServiceName]) -> impl Iterator<Item = &Service> {
        let asked_for = |name: &ServiceName| asked.is_empty() || asked.binary_search(name).is_ok();
        self.services.iter().filter(move |(name, _)| asked_for(name)).map(|(_, service)| service)
    }
}

// === impl Service ===

impl Service {
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
