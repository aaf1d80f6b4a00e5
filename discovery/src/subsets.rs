//! Who has which share of a service that is too large for everybody to know all of it.
//!
//! Clients that ask for as many instances of the same ones share a [`Group`]. What changes is only noted down where it
//! happens, by the writer; whoever looks at the group next brings it up to date, and [`Groups::keep_up`] does so soon in
//! any case. A watcher is woken when its own share changes, or one of the instances in it, and by nothing else.

mod group;
mod meters;
mod table;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use roundsman_protocol::{DiscoveryError, InstanceId, Invalid, Namespace, Query, ServiceName};
use roundsman_registry::{Effect, Registry};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use self::{group::Group, meters::Meters, table::Table};
use crate::{memory::Budget, metrics::Metrics, offload::Offload};

/// How long a client that is gone keeps its share: long enough for the way between two watches, a new connection or a
/// restart. So long after a group's beginning, clients also get back what they had on another server.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// How often shares are taken from clients that are gone for that long.
const EVERY: Duration = Duration::from_secs(1);
/// A new group of more instances is filled where nobody else waits for it.
const FEW: usize = 2_048;

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Groups of a namespace.
    pub(crate) groups: usize,
    /// Clients of a group, those that are gone but kept included.
    pub(crate) clients: usize,
    /// Clients of all groups of a namespace.
    pub(crate) clients_of_a_namespace: usize,
}

/// The groups of all namespaces.
#[derive(Debug)]
pub(crate) struct Groups {
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    limits: Limits,
    /// Ties are broken by it: another server favours other instances.
    seed: u64,
    table: Mutex<Table>,
    /// Something was noted down.
    noted: Notify,
    meters: Meters,
}

/// What the clients of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) namespace: Namespace,
    /// Names one service; says nothing about any client.
    pub(crate) query: Query,
    pub(crate) size: NonZeroU32,
}

/// A client's place in a group, for as long as one watch of it lasts, and a grace after that.
#[derive(Debug)]
pub(crate) struct Membership {
    groups: Arc<Groups>,
    group: Arc<Group>,
    client: Arc<str>,
    bell: watch::Receiver<()>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { groups: 256, clients: 10_000, clients_of_a_namespace: 50_000 }
    }
}

// === impl Key ===

impl Key {
    /// The group that a query asks for a share of, in the name of which client. `None` when it asks for everything.
    ///
    /// # Errors
    /// When the query does not name exactly one service.
    pub(crate) fn of(namespace: &Namespace, query: &Query) -> Result<Option<(Self, Arc<str>)>, Invalid> {
        let Some(subset) = &query.subset else { return Ok(None) };
        if query.services.len() != 1 {
            let named = query.services.len();
            return Err(Invalid::new("services", format!("a subset is of one service, {named} are named")));
        }
        let size = NonZeroU32::new(subset.size).unwrap_or(NonZeroU32::MIN);
        let client = Arc::from(&*subset.client);
        let query = Query { subset: None, history: false, ..query.clone() };
        Ok(Some((Self { namespace: namespace.clone(), query, size }, client)))
    }

    /// The service.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        self.query.services.first()
    }
}

// === impl Groups ===

impl Groups {
    pub(crate) fn new(registry: Arc<Registry>, budget: Arc<Budget>, metrics: &mut Metrics) -> Arc<Self> {
        Self::with_limits(registry, budget, Limits::default(), metrics)
    }

    fn with_limits(registry: Arc<Registry>, budget: Arc<Budget>, limits: Limits, metrics: &mut Metrics) -> Arc<Self> {
        let (table, noted) = (Mutex::default(), Notify::new());
        let (seed, meters) = (fastrand::u64(..), Meters::new(metrics));
        let groups = Arc::new(Self { registry, budget, limits, seed, table, noted, meters });
        meters::export(&groups, metrics);
        groups
    }

    /// Whether a share is given out in a moment. Otherwise the group is new and its service is large.
    pub(crate) fn is_quick(&self, key: &Key) -> bool {
        let group = self.table().find(key);
        group.is_some_and(|group| group.is_filled()) || self.registry.snapshot(&key.namespace, &key.query).len() <= FEW
    }

    /// Gives a client its share. `wanted`: what it had before, here or on another server.
    ///
    /// # Errors
    /// When a limit is reached.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        client: &Arc<str>,
        wanted: &[InstanceId],
    ) -> Result<Membership, DiscoveryError> {
        loop {
            let group = self.group(key)?;
            let joined = group.join(self, client, wanted, Instant::now())?;
            // One that was given up at that very moment is no longer in the table.
            let Some(bell) = joined else { continue };
            return Ok(Membership { groups: Arc::clone(self), group, client: Arc::clone(client), bell });
        }
    }

    /// Notes down what changed, once the registry shows it. Only the writer calls this.
    pub(crate) fn changed(&self, effects: &[Effect]) {
        let mut table = self.table();
        if table.is_empty() {
            return;
        }
        let records = effects.iter().flat_map(|effect| effect.before.iter().chain(&effect.after));
        let noted = records.filter(|record| table.note(&record.instance)).count();
        drop(table);
        if noted > 0 {
            self.noted.notify_one();
        }
    }

    /// Brings groups up to date as things change, and forgets clients that are gone. Never ends.
    pub(crate) async fn keep_up(self: &Arc<Self>, offload: &Offload) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let groups = tokio::select! {
                () = self.noted.notified() => self.table().take_noted(),
                _ = tick.tick() => self.table().all(),
            };
            for group in groups {
                if group.is_light() {
                    group.tend(self, Instant::now());
                    tokio::task::yield_now().await;
                    continue;
                }
                let groups = Arc::clone(self);
                let tended = offload.run(move || group.tend(&groups, Instant::now())).await;
                if tended.is_err() {
                    tracing::debug!("too much waits: a group of clients is brought up to date a little later");
                }
            }
        }
    }

    /// The group of a key, new if need be.
    fn group(&self, key: &Key) -> Result<Arc<Group>, DiscoveryError> {
        let mut table = self.table();
        if let Some(group) = table.find(key) {
            return Ok(group);
        }
        if table.len_of(&key.namespace) >= self.limits.groups {
            return Err(reached("on different subset queries of a namespace", self.limits.groups));
        }
        let seed = self.seed;
        Ok(table.add(key, |clients| Group::new(key.clone(), self.limits, seed, clients, Instant::now() + GRACE)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

// === impl Membership ===

impl Membership {
    /// The client's share at this moment. What is in it may be gone already, but nothing that the registry shows later
    /// than this call is missed: [`Membership::changed`] tells.
    pub(crate) fn share(&mut self) -> Vec<InstanceId> {
        self.bell.mark_unchanged();
        self.group.share(&self.groups, &self.client, Instant::now())
    }

    /// Waits until the share, or something in it, changed since [`Membership::share`] was called. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.bell.changed().await.is_err() {
            // Its sender lives for as long as somebody listens.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.leave(&self.client, Instant::now() + GRACE);
    }
}

fn reached(limit: &str, value: usize) -> DiscoveryError {
    DiscoveryError::LimitReached { limit: limit.to_owned(), value: u64::try_from(value).unwrap_or(u64::MAX) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic between two related changes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
