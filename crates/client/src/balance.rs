//! Which of a resolver's instances a call goes to.
//!
//! Knows nothing of servers and of how the list comes about; see [`Pool`] for the choice itself.

mod eligible;
mod lane;
mod latencies;
mod load;
mod member;
mod nearness;
mod peer;
mod pool;

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
};

#[cfg(feature = "http")]
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use roundsman_protocol::{Instance, InstanceId, Trouble};

use crate::snapshot::Snapshot;
use member::Call;
use pool::{Choice, Pool};

#[cfg(all(test, feature = "http"))]
pub(crate) use eligible::tests::peers;
pub(crate) use nearness::Nearness;
pub(crate) use peer::Peers;
#[cfg(feature = "http")]
pub(crate) use {member::Verdict, nearness::Part, pool::spread};

/// How [`Resolver::pick`](crate::Resolver::pick) chooses; set by [`Resolve::policy`](crate::Resolve::policy). Resolvers pick by
/// [`Policy::Weighted`] unless told otherwise, calls by name (over HTTP, gRPC and the middleware) by [`Policy::PeakEwma`].
///
/// By key, so that the same key goes to the same instance, chooses
/// [`Resolver::pick_for`](crate::Resolver::pick_for), whatever the policy.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use roundsman::Policy;
///
/// let products = discovery.resolver("product").policy(Policy::PeakEwma).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// In turn, each as often as its weight says. With equal weights, which is the rule, a plain round robin.
    #[default]
    Weighted,
    /// [`Policy::Weighted`] under its usual name: weights count in every policy.
    RoundRobin,
    /// At random, each as likely as its weight says. Spreads well where very many callers make few calls each.
    Random,
    /// In turn and by weight, but around whoever promises an answer that takes twice as long as that of another one at random:
    /// by its latency so far, peaks above all, or what its calls have been waiting for already, times the calls it has at the
    /// moment for its weight. Equals have equal shares. The latency is known only if the [`Pick`] is kept until the
    /// call is over.
    PeakEwma,
}

/// An instance that was picked for a call. It reads like the [`Instance`] itself.
///
/// Say how the call went, by [`Pick::succeeded`], [`Pick::failed`] or [`Pick::failed_by`]: an instance that keeps
/// failing is passed over for a while (see [`CircuitBreaker`](crate::CircuitBreaker)), and the servers are asked to visit it at once.
/// Under [`Policy::PeakEwma`] it counts as a call under way until then. Dropped without a word it tells little.
///
/// ```no_run
/// # async fn call(_: &roundsman::Address) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// use roundsman::{Policy, Trouble};
/// use std::io::ErrorKind;
///
/// let products = discovery.resolver("product").policy(Policy::PeakEwma).await?;
/// let product = products.pick().ok_or("nobody sells at the moment")?;
/// match call(&product.address).await {
///     Ok(()) => product.succeeded(),
///     Err(error) if error.kind() == ErrorKind::ConnectionRefused => product.failed_by(Trouble::Refused),
///     Err(_) => product.failed(),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the call should go to the instance that was picked"]
pub struct Pick {
    call: Call,
}

/// Chooses, for one resolver and its clones.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    nearness: Nearness,
    turn: AtomicUsize,
    /// What our calls tell about each instance.
    peers: Arc<Peers>,
    /// Made of the snapshot that was picked from last.
    pool: ArcSwap<Pool>,
    /// Held by the one who makes the next pool.
    renewing: Mutex<()>,
}

// === impl Balancer ===

impl Balancer {
    pub(crate) fn new(policy: Policy, nearness: Nearness, peers: Arc<Peers>, snapshot: &Arc<Snapshot>) -> Self {
        let pool = Pool::new(snapshot, &nearness, &peers);
        // Not everybody begins with the same instance.
        let turn = AtomicUsize::new(fastrand::usize(..));
        Self { policy, nearness, turn, peers, pool: ArcSwap::from_pointee(pool), renewing: Mutex::new(()) }
    }

    pub(crate) fn pick(&self, snapshot: &Arc<Snapshot>) -> Option<Pick> {
        let (pool, turn) = (self.pool(snapshot), self.turn());
        pool.choose(self.policy, turn).map(|choice| self.taken(choice))
    }

    /// As [`Balancer::pick`], but another one than these, if there is another one.
    pub(crate) fn pick_except(&self, snapshot: &Arc<Snapshot>, tried: &[InstanceId]) -> Option<Pick> {
        let (pool, turn) = (self.pool(snapshot), self.turn());
        pool.choose_except(self.policy, turn, tried).map(|choice| self.taken(choice))
    }

    /// As [`Balancer::pick_except`], but no other is none, and so is one that is passed over.
    #[cfg(feature = "http")]
    pub(crate) fn pick_other(&self, snapshot: &Arc<Snapshot>, tried: &[InstanceId]) -> Option<Pick> {
        let (pool, turn) = (self.pool(snapshot), self.turn());
        pool.choose_other(self.policy, turn, tried).map(|choice| self.taken(choice))
    }

    /// This one, if it can be used, for a call that can go to no other.
    #[cfg(feature = "http")]
    pub(crate) fn pick_this(&self, snapshot: &Arc<Snapshot>, id: &InstanceId) -> Option<Pick> {
        self.pool(snapshot).find(id).map(|choice| Pick { call: self.taken(choice).call.named() })
    }

    pub(crate) fn pick_for(&self, snapshot: &Arc<Snapshot>, key: &[u8]) -> Option<Pick> {
        self.pool(snapshot).choose_for(key, &[]).map(|choice| self.taken(choice))
    }

    /// As [`Balancer::pick_for`], but none if it is one of these.
    #[cfg(feature = "http")]
    pub(crate) fn pick_for_except(&self, snapshot: &Arc<Snapshot>, key: &[u8], avoided: &[InstanceId]) -> Option<Pick> {
        let pool = self.pool(snapshot);
        let choice = pool.choose_for(key, avoided)?;
        (!avoided.contains(&choice.member.instance.id)).then(|| self.taken(choice))
    }

    /// Whether an instance that is not in the list could be used.
    #[cfg(feature = "http")]
    pub(crate) fn admits(&self, instance: &Instance) -> bool {
        self.nearness.admits(instance)
    }

    /// The first that could be picked, without picking it.
    pub(crate) fn first(&self, snapshot: &Arc<Snapshot>) -> Option<Arc<Instance>> {
        self.pool(snapshot).members().next().map(|member| Arc::clone(&member.instance))
    }

    /// Those that are passed over at the moment.
    pub(crate) fn ejected(&self, snapshot: &Arc<Snapshot>) -> Vec<Arc<Instance>> {
        self.pool(snapshot).ejected().cloned().collect()
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn taken(&self, choice: Choice<'_>) -> Pick {
        Pick { call: Call::begin(choice.member, self.policy == Policy::PeakEwma, choice.trial) }
    }

    /// The pool of this snapshot. While another thread makes it, the one before serves: nobody waits, unless there was
    /// nobody in it, which is no answer to those who come with the first instances.
    fn pool(&self, snapshot: &Arc<Snapshot>) -> Guard<Arc<Pool>> {
        let pool = self.pool.load();
        if pool.is_current(snapshot, &self.peers) {
            return pool;
        }
        let _renewing = match self.renewing.try_lock() {
            Ok(renewing) => renewing,
            Err(TryLockError::WouldBlock) if !pool.is_empty() => return pool,
            Err(_) => self.renewing.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let pool = self.pool.load();
        if pool.is_current(snapshot, &self.peers) {
            return pool;
        }
        self.pool.store(Arc::new(Pool::new(snapshot, &self.nearness, &self.peers)));
        self.pool.load()
    }
}

// === impl Pick ===

impl Pick {
    /// The instance, to be kept.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        self.call.instance()
    }

    /// The call was answered, whatever the answer.
    pub fn succeeded(mut self) {
        drop(self.call.succeeded());
    }

    /// The call failed: this instance counts as slow for a while, however fast it failed. After some failures it is
    /// passed over, and reported to the servers.
    pub fn failed(mut self) {
        self.call.failed(None);
    }

    /// The call failed in this way: as [`Pick::failed`]. A connection that was refused or reset, and an answer that did not come
    /// in time, are reported to the servers at once, at most once a second for each instance.
    pub fn failed_by(mut self, trouble: Trouble) {
        self.call.failed(Some(&trouble));
    }
}

#[cfg(feature = "http")]
impl Pick {
    /// The 99th percentile of its answers' times, if it has given so many.
    pub(crate) fn p99(&self, answers: u32) -> Option<Duration> {
        self.call.peer().latencies.p99(answers)
    }

    /// Its answer came after so long, and is of use.
    pub(crate) fn took(&self, time: Duration) {
        self.call.took(time);
    }

    /// The call was answered, as far as its caller can tell by now.
    pub(crate) fn answered(mut self) -> Verdict {
        self.call.succeeded()
    }

    /// There will be no call, and there was none.
    pub(crate) fn unused(mut self) {
        self.call.unused();
    }

    /// The instance asks to be left alone for so long.
    pub(crate) fn hold(&self, time: Duration) {
        self.call.peer().hold(self.call.instance(), time);
    }

    /// The call waits for much longer than is usual, and goes on: that counts as a failure now, unless it is answered
    /// after all.
    pub(crate) fn overdue(&mut self) {
        self.call.overdue();
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        self.call.instance()
    }
}

/// Ends the call without a word: nothing is learned of its outcome, nor, under [`Policy::PeakEwma`], of its load and latency.
/// [`Pick::instance`] does not.
impl From<Pick> for Arc<Instance> {
    fn from(pick: Pick) -> Self {
        Arc::clone(pick.instance())
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.instance()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::{eligible::tests::peers, *};
    use crate::cache::tests::instance;

    #[tokio::test]
    async fn the_first_instances_are_there_for_everybody_at_once() {
        let peers = Arc::new(peers());
        let snapshot = |ids: &[String]| {
            let instances = ids.iter().map(|id| Arc::new(instance("product", id)));
            Arc::new(Snapshot::known(instances.collect(), None))
        };
        let some: Vec<_> = (0..500).map(|n| format!("i{n}")).collect();
        let (nobody, some) = (snapshot(&[]), snapshot(&some));
        for _ in 0..50 {
            let balancer = Balancer::new(Policy::Weighted, Nearness::default(), Arc::clone(&peers), &nobody);
            let together = Barrier::new(4);
            let pick = || {
                together.wait();
                balancer.pick(&some).is_some()
            };
            let picked = thread::scope(|scope| [0; 4].map(|_| scope.spawn(pick)).map(|thread| thread.join().unwrap()));
            assert_eq!(picked, [true; 4]);
        }
    }
}
