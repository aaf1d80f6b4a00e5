//! What the registry knows about one instance.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

use roundsman_protocol::{Check, CheckKind, Flip, Instance, InstanceStatus, Registration, Timestamp, limits};
use serde::{Deserialize, Serialize};

use crate::edit::Key;

// Shared, because a registry holds very many instances that say the same.
static REGISTERED: LazyLock<Arc<str>> = LazyLock::new(|| "registered".into());
static CALLED_IN: LazyLock<Arc<str>> = LazyLock::new(|| "called in".into());
static NOT_CHECKED: LazyLock<Arc<str>> = LazyLock::new(|| "not checked".into());

/// The checks of the last registrations: nearly all are visited alike.
static LATELY: Mutex<VecDeque<Arc<Check>>> = Mutex::new(VecDeque::new());
/// How many different ones are remembered.
const CHECKS: usize = 16;

static NO_FLIPS: LazyLock<Arc<[Flip]>> = LazyLock::new(|| Arc::new([]));

/// One instance: what everyone sees of it, and what only the server knows.
///
/// Immutable; a change makes a new record. Readers hold on to old ones as long as they like.
#[derive(Clone, Debug)]
pub struct Record {
    /// What everyone sees. Its `status` follows from [`Record::health`] and [`Record::draining`]; its
    /// `history` is empty, see [`Record::history`].
    pub instance: Arc<Instance>,
    /// What the visits say.
    pub health: Health,
    /// Whether its owner or an operator wants it out of the lookups.
    pub draining: bool,
    /// Which life of this id it is: a new one begins when it registers after an eviction, at another address or
    /// with another check. What was observed in an earlier life no longer counts.
    pub incarnation: u64,
    /// The last [`limits::HISTORY`] flips of its status, oldest first. Empty for as long as it has the status that it
    /// began with, which is true of most: [`Record::flips`] tells that one as well.
    pub history: Arc<[Flip]>,
    /// The instance in postcard, made when it is first looked up.
    pub encoded: OnceLock<Box<[u8]>>,
    /// The instance's [`Instance::fingerprint`], computed once: [`Record::restored`] does so.
    pub fingerprint: u64,
}

/// What the visits say about an instance; draining comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No visit has passed yet.
    Starting,
    /// The last visit passed.
    Passing,
    /// The last visit failed, and one more decides.
    Suspect,
    /// Out, and on probation.
    Evicted,
}

// === impl Record ===

impl Record {
    /// A new record of something that just registered.
    #[must_use]
    ///
    /// Whoever is visited starts; whoever calls in did so by registering, and whoever is not checked is taken at its word.
    pub fn registered(key: &Key, registration: &Registration, incarnation: u64, now: Timestamp) -> Self {
        let (health, reason) = match registration.check.kind {
            CheckKind::None => (Health::Passing, &*NOT_CHECKED),
            CheckKind::Ttl => (Health::Passing, &*CALLED_IN),
            CheckKind::Http | CheckKind::Https | CheckKind::Tcp => (Health::Starting, &*REGISTERED),
        };
        let instance = Instance {
            id: key.id.clone(),
            name: registration.name.clone(),
            namespace: key.namespace.clone(),
            address: registration.address.clone(),
            status: status(health, false),
            reason: Arc::clone(reason),
            since: now,
            registered_at: now,
            check: shared(&registration.check),
            tags: registration.tags.clone().into(),
            meta: registration.meta.clone(),
            zone: registration.zone.clone(),
            version: registration.version.clone(),
            weight: registration.weight,
            history: Box::default(),
        };
        Self::restored(instance, health, false, incarnation, Arc::clone(&NO_FLIPS))
    }

    /// A record as a store kept it. The instance's status is made to agree with `health` and `draining`.
    #[must_use]
    pub fn restored(
        mut instance: Instance,
        health: Health,
        draining: bool,
        incarnation: u64,
        history: Arc<[Flip]>,
    ) -> Self {
        instance.status = status(health, draining);
        let fingerprint = instance.fingerprint();
        let encoded = OnceLock::new();
        Self { instance: Arc::new(instance), health, draining, incarnation, history, encoded, fingerprint }
    }

    /// Where it belongs.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { namespace: self.instance.namespace.clone(), id: self.instance.id.clone() }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        self.instance.status
    }

    /// Whether `registration` would change nothing.
    #[must_use]
    pub fn says(&self, registration: &Registration) -> bool {
        let known = &self.instance;
        self.health != Health::Evicted
            && known.name == registration.name
            && known.address == registration.address
            && *known.check == registration.check
            && *known.tags == *registration.tags
            && known.meta == registration.meta
            && known.zone == registration.zone
            && known.version == registration.version
            && known.weight == registration.weight
    }

    /// The same instance with what it now says of itself; its health and history go on.
    #[must_use]
    pub fn updated(&self, registration: &Registration) -> Self {
        let instance = Instance {
            tags: registration.tags.clone().into(),
            meta: registration.meta.clone(),
            zone: registration.zone.clone(),
            version: registration.version.clone(),
            weight: registration.weight,
            ..Instance::clone(&self.instance)
        };
        Self::restored(instance, self.health, self.draining, self.incarnation, Arc::clone(&self.history))
    }

    /// The same instance in another state of health, or drained.
    #[must_use]
    pub fn flipped(&self, health: Health, draining: bool, reason: Arc<str>, at: Timestamp) -> Self {
        let mut instance = Instance::clone(&self.instance);
        let to = status(health, draining);
        let mut history = Arc::clone(&self.history);
        if to != self.status() {
            let flip = Flip { at, status: to, reason: Arc::clone(&reason) };
            let before = self.flips();
            let excess = before.len().saturating_sub(limits::HISTORY - 1);
            history = before.into_iter().skip(excess).chain([flip]).collect();
            instance.since = at;
        }
        instance.reason = reason;
        Self::restored(instance, health, draining, self.incarnation, history)
    }

    /// The last [`limits::HISTORY`] flips of its status, oldest first, never none.
    #[must_use]
    pub fn flips(&self) -> Vec<Flip> {
        if self.history.is_empty() {
            let Instance { since, status, reason, .. } = &*self.instance;
            return vec![Flip { at: *since, status: *status, reason: Arc::clone(reason) }];
        }
        self.history.to_vec()
    }

    /// The bytes that it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.instance.bytes() + self.history.len() * size_of::<Flip>()
    }

    /// The instance in postcard.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        // Writing to a Vec fails for no type that this crate writes; an empty answer would be noticed at once.
        self.encoded.get_or_init(|| postcard::to_allocvec(&self.instance).unwrap_or_default().into())
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.instance == other.instance
            && self.health == other.health
            && self.draining == other.draining
            && self.history == other.history
    }
}

/// The check, as an instance that registered lately holds it.
fn shared(check: &Check) -> Arc<Check> {
    let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lately.iter().find(|known| ***known == *check) {
        return Arc::clone(known);
    }
    let check = Arc::new(check.clone());
    lately.truncate(CHECKS - 1);
    lately.push_front(Arc::clone(&check));
    check
}

fn status(health: Health, draining: bool) -> InstanceStatus {
    match health {
        Health::Evicted => InstanceStatus::Evicted,
        _ if draining => InstanceStatus::Draining,
        Health::Starting => InstanceStatus::Starting,
        Health::Passing => InstanceStatus::Passing,
        Health::Suspect => InstanceStatus::Suspect,
    }
}

#[cfg(test)]
mod tests;
