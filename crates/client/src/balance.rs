//! Which of a resolver's instances a call goes to.
//!
//! Knows nothing of servers and of how the list comes about; see [`Pool`] for the choice itself.

mod load;
mod pool;

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use roundsman_protocol::{Host, Instance, InstanceId, Trouble};

use crate::snapshot::Snapshot;
use load::Flight;
use pool::{Member, Pool};

/// How [`Resolver::pick`](crate::Resolver::pick) chooses; set by [`Resolve::policy`](crate::Resolve::policy).
///
/// By key, so that the same key goes to the same instance, chooses
/// [`Resolver::pick_for`](crate::Resolver::pick_for), whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// In turn, each as often as its weight says. With equal weights, which is the rule, a plain round robin.
    #[default]
    Weighted,
    /// In turn, whatever the weights.
    RoundRobin,
    /// At random, whatever the weights. Spreads well where very many callers make few calls each.
    Random,
    /// Of two at random, the one that promises the faster answer: by its latency so far, peaks above all, times the
    /// calls it has at the moment. Goes around slow instances, whatever the weights. The latency is known
    /// only if the [`Pick`] is kept until the call is over.
    PeakEwma,
}

/// An instance that was picked for a call. It reads like the [`Instance`] itself.
///
/// Under [`Policy::PeakEwma`] it counts as a call under way until it is dropped; tell how the call went by
/// [`Pick::succeeded`] or [`Pick::failed`]. Under the other policies neither makes a difference.
///
/// ```no_run
/// # async fn call(_: &roundsman::Address) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// use roundsman::Policy;
///
/// let products = discovery.resolver("product").policy(Policy::PeakEwma).await?;
/// let product = products.pick().ok_or("nobody sells at the moment")?;
/// match call(&product.address).await {
///     Ok(()) => product.succeeded(),
///     Err(_) => product.failed(),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the call should go to the instance that was picked"]
pub struct Pick {
    instance: Arc<Instance>,
    flight: Option<Flight>,
}

/// Which instances come into question at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nearness {
    /// Those in this zone, if there are any.
    pub(crate) zone: Option<Box<str>>,
    /// Those on this host, and no others.
    pub(crate) host: Option<Host>,
}

/// Chooses, for one resolver and its clones.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    nearness: Nearness,
    turn: AtomicUsize,
    /// Made of the snapshot that was picked from last.
    pool: ArcSwap<Pool>,
    /// Held by the one who makes the next pool.
    renewing: Mutex<()>,
}

// === impl Balancer ===

impl Balancer {
    pub(crate) fn new(policy: Policy, nearness: Nearness, snapshot: &Arc<Snapshot>) -> Self {
        let pool = Pool::new(snapshot, &nearness, None);
        // Not everybody begins with the same instance.
        let turn = AtomicUsize::new(fastrand::usize(..));
        Self { policy, nearness, turn, pool: ArcSwap::from_pointee(pool), renewing: Mutex::new(()) }
    }

    pub(crate) fn pick(&self, snapshot: &Arc<Snapshot>) -> Option<Pick> {
        let pool = self.pool(snapshot);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        pool.choose(self.policy, turn).map(|member| self.taken(member))
    }

    /// As [`Balancer::pick`], but another one than these, if there is another one.
    pub(crate) fn pick_except(&self, snapshot: &Arc<Snapshot>, tried: &[InstanceId]) -> Option<Pick> {
        let pool = self.pool(snapshot);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        pool.choose_except(self.policy, turn, tried).map(|member| self.taken(member))
    }

    pub(crate) fn pick_for(&self, snapshot: &Arc<Snapshot>, key: &[u8]) -> Option<Pick> {
        self.pool(snapshot).choose_for(key).map(|member| self.taken(member))
    }

    /// The first that could be picked, without picking it.
    pub(crate) fn first(&self, snapshot: &Snapshot) -> Option<Arc<Instance>> {
        pool::near(snapshot.instances(), &self.nearness).first().map(|instance| Arc::clone(instance))
    }

    fn taken(&self, member: &Member) -> Pick {
        let flight = (self.policy == Policy::PeakEwma).then(|| Flight::begin(&member.load));
        Pick { instance: Arc::clone(&member.instance), flight }
    }

    /// The pool of this snapshot. While another thread makes it, the one before serves: nobody waits.
    fn pool(&self, snapshot: &Arc<Snapshot>) -> Guard<Arc<Pool>> {
        let pool = self.pool.load();
        if pool.is_of(snapshot) {
            return pool;
        }
        let Ok(_renewing) = self.renewing.try_lock() else { return pool };
        self.pool.store(Arc::new(Pool::new(snapshot, &self.nearness, Some(&pool))));
        self.pool.load()
    }
}

// === impl Pick ===

impl Pick {
    /// The instance, to be kept.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The call was answered.
    pub fn succeeded(mut self) {
        if let Some(flight) = self.flight.take() {
            flight.succeeded();
        }
    }

    /// The call failed: this instance counts as slow for a while, however fast it failed.
    pub fn failed(mut self) {
        if let Some(flight) = self.flight.take() {
            flight.failed();
        }
    }
}

impl Pick {
    /// The call failed in this way: as [`Pick::failed`], and discovery is told, so that the instance is visited at once.
    pub fn failed_by(self, trouble: Trouble) {
        let _ = trouble;
        self.failed();
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl From<Pick> for Arc<Instance> {
    fn from(pick: Pick) -> Self {
        pick.instance
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(&self.instance).finish()
    }
}
