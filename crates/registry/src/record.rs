//! What the registry knows about one instance.

mod state;

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use roundsman_protocol::{Check, Flip, Instance, InstanceStatus, Registration, Timestamp, limits};

pub use self::state::{Asked, Health, Observed};
use self::state::{DRAINED, VISITED_ANEW, shown};
use crate::edit::Key;

/// The checks of the last registrations: nearly all are visited alike.
static LATELY: Mutex<VecDeque<Arc<Check>>> = Mutex::new(VecDeque::new());
/// How many different ones are remembered.
const CHECKS: usize = 16;

static UNDRAINED: LazyLock<Arc<str>> = LazyLock::new(|| "drain undone by request".into());

static NO_FLIPS: LazyLock<Arc<[Flip]>> = LazyLock::new(|| Arc::new([]));

/// One instance: what its owner asked for, what was observed of it, and what everyone sees of the two.
///
/// Immutable; a change makes a new record. Readers hold on to old ones as long as they like.
#[derive(Clone, Debug)]
pub struct Record {
    /// What everyone sees: what its owner said of it, and a `status` and a `reason` that follow from [`Record::asked`] and
    /// [`Record::observed`]. Its `history` is empty, see [`Record::history`].
    pub instance: Arc<Instance>,
    /// What was asked for. Only requests change it.
    pub asked: Asked,
    /// What was observed. Only the rounds change it.
    pub observed: Observed,
    /// The last [`limits::HISTORY`] flips of its status, oldest first. Empty for as long as it has the status that it
    /// began with, which is true of most: [`Record::flips`] tells that one as well.
    pub history: Arc<[Flip]>,
    /// The instance in postcard, made when it is first looked up.
    pub encoded: OnceLock<Box<[u8]>>,
    /// The instance's [`Instance::fingerprint`], computed once: [`Record::restored`] does so.
    pub fingerprint: u64,
}

// === impl Record ===

impl Record {
    /// A new record of something that just registered, which begins a life.
    ///
    /// Whoever is visited starts; whoever calls in did so by registering, and whoever is not checked is taken at its word.
    #[must_use]
    pub fn registered(key: &Key, registration: &Registration, version: u64, now: Timestamp) -> Self {
        let observed = Observed::at_first(&registration.check, now);
        let instance = Instance {
            id: key.id.clone(),
            name: registration.name.clone(),
            namespace: key.namespace.clone(),
            address: registration.address.clone(),
            status: InstanceStatus::Starting,
            reason: Arc::clone(&observed.reason),
            since: now,
            registered_at: now,
            check: shared(&registration.check),
            tags: registration.tags.clone().into(),
            meta: registration.meta.clone(),
            zone: registration.zone.clone(),
            version: registration.version.clone(),
            weight: registration.weight,
            history: Box::default(),
            forget_after: registration.forget_after,
        };
        let asked = Asked { version, incarnation: version, ..Asked::default() };
        Self::restored(instance, asked, observed, Arc::clone(&NO_FLIPS))
    }

    /// A record as a store kept it. Status and reason of the instance are made to agree with the rest.
    #[must_use]
    pub fn restored(mut instance: Instance, asked: Asked, observed: Observed, history: Arc<[Flip]>) -> Self {
        (instance.status, instance.reason) = shown(asked, &observed);
        let fingerprint = instance.fingerprint();
        let encoded = OnceLock::new();
        Self { instance: Arc::new(instance), asked, observed, history, encoded, fingerprint }
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
        !self.is_evicted() && self.would_say(registration)
    }

    /// The same, whether it is out or not.
    pub(crate) fn would_say(&self, registration: &Registration) -> bool {
        let known = &self.instance;
        known.name == registration.name
            && known.address == registration.address
            && *known.check == registration.check
            && *known.tags == *registration.tags
            && known.meta == registration.meta
            && known.zone == registration.zone
            && known.version == registration.version
            && known.weight == registration.weight
            && known.forget_after == registration.forget_after
    }

    /// The same instance with what it now says of itself. What was observed goes on.
    #[must_use]
    pub fn updated(&self, registration: &Registration, version: u64) -> Self {
        let instance = Instance {
            tags: registration.tags.clone().into(),
            meta: registration.meta.clone(),
            zone: registration.zone.clone(),
            version: registration.version.clone(),
            weight: registration.weight,
            forget_after: registration.forget_after,
            ..Instance::clone(&self.instance)
        };
        let asked = Asked { version, ..self.asked };
        Self::restored(instance, asked, self.observed.clone(), Arc::clone(&self.history))
    }

    /// The same instance in a new life, in which nothing was observed yet: it registered again, and is another process
    /// or visited in another way, or was evicted. `draining`: whether the wish holds on.
    #[must_use]
    pub fn reborn(&self, key: &Key, registration: &Registration, draining: bool, version: u64, at: Timestamp) -> Self {
        let Self { instance: fresh, asked, mut observed, .. } = Self::registered(key, registration, version, at);
        let is_starting = observed.health == Health::Starting;
        if is_starting && fresh.address == self.instance.address && fresh.check != self.instance.check {
            observed.reason = Arc::clone(&VISITED_ANEW);
        }
        let asked = Asked { draining, held: self.asked.held && draining, ..asked };
        let history = self.changed(asked, observed.clone(), Arc::clone(&observed.reason), at).history;
        Self::restored(Instance::clone(&fresh), asked, observed, history)
    }

    /// The same instance, drained or no longer so.
    #[must_use]
    pub fn drained(&self, on: bool, version: u64, at: Timestamp) -> Self {
        let why = if on { &DRAINED } else { &UNDRAINED };
        let asked = Asked { version, draining: on, held: on && self.asked.held, ..self.asked };
        self.changed(asked, self.observed.clone(), Arc::clone(why), at)
    }

    /// The same instance, drained by an operator.
    #[must_use]
    pub fn held(&self, version: u64, at: Timestamp) -> Self {
        let asked = Asked { version, draining: true, held: true, ..self.asked };
        self.changed(asked, self.observed.clone(), Arc::clone(&DRAINED), at)
    }

    /// What is left of the instance while its id is kept out: a life in which it is out, and nobody visits it. `by` asked
    /// for it.
    #[must_use]
    pub fn blocked(&self, until: Timestamp, by: &str, version: u64, at: Timestamp) -> Self {
        let text = until.to_string();
        let seconds = text.split_once('.').map_or(&*text, |(seconds, _)| seconds);
        let reason: Arc<str> = format!("blocked until {seconds}Z by {by}").into();
        let asked = Asked { version, incarnation: version, blocked: Some(until), ..self.asked };
        self.changed(asked, Observed::out(Arc::clone(&reason), at), reason, at)
    }

    /// The same instance as a visit at `at` left it.
    #[must_use]
    pub fn seen(&self, health: Health, reason: Arc<str>, by: Arc<str>, at: Timestamp) -> Self {
        let since = if health == self.observed.health { self.observed.since } else { at };
        let why = Arc::clone(&reason);
        self.changed(self.asked, Observed { health, reason, since, by }, why, at)
    }

    /// What this record's owner asked for, with what another record says was observed.
    #[must_use]
    pub fn observed_as(&self, other: &Self) -> Self {
        let observed = other.observed.clone();
        let (why, at) = (Arc::clone(&observed.reason), observed.since);
        self.changed(self.asked, observed, why, at)
    }

    fn changed(&self, asked: Asked, observed: Observed, why: Arc<str>, at: Timestamp) -> Self {
        let mut instance = Instance::clone(&self.instance);
        let (to, _) = shown(asked, &observed);
        let mut history = Arc::clone(&self.history);
        if to != self.status() {
            let flip = Flip { at, status: to, reason: why };
            let before = self.flips();
            let excess = before.len().saturating_sub(limits::HISTORY - 1);
            history = before.into_iter().skip(excess).chain([flip]).collect();
            instance.since = at;
        }
        Self::restored(instance, asked, observed, history)
    }

    /// Whether it is out, and on probation.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.observed.health == Health::Evicted || self.is_blocked()
    }

    /// Whether it is what is left of an instance whose id is, or was until a moment ago, kept out.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.asked.blocked.is_some()
    }

    /// How long it is remembered once it is evicted, where it wants another time than the server's.
    #[must_use]
    pub fn forget_after(&self) -> Option<Duration> {
        self.instance.forget_after
    }

    /// Whether a store may drop it by itself when the server's probation is over. Who is remembered for a time of its own is
    /// forgotten by the rounds, so that nobody is forgotten without a word, nor comes back from a store.
    #[must_use]
    pub fn expires_by_itself(&self) -> bool {
        self.is_evicted() && !self.is_blocked() && self.forget_after().is_none()
    }

    /// Whether the same was asked for of both.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.instance, &other.instance);
        self.asked == other.asked
            && (&one.name, &one.address, &one.check, &one.zone) == (&two.name, &two.address, &two.check, &two.zone)
            && (&one.tags, &one.meta, &one.version, one.weight) == (&two.tags, &two.meta, &two.version, two.weight)
            && (one.registered_at, one.forget_after) == (two.registered_at, two.forget_after)
    }

    /// Which of two was asked for later. Ids decide where servers were asked at the same moment.
    #[must_use]
    pub fn is_asked_later_than(&self, other: &Self) -> bool {
        (self.asked.version, &self.instance.id) > (other.asked.version, &other.instance.id)
    }

    /// Whether `other` is of the same life: what was observed of one holds for both.
    #[must_use]
    pub fn is_same_life(&self, other: &Self) -> bool {
        self.asked.incarnation == other.asked.incarnation
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
            && self.asked == other.asked
            && self.observed == other.observed
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

#[cfg(test)]
mod tests;
