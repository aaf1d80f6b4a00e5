//! What is known of each instance by our own calls, shared by all resolvers of a client.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Address, Instance, InstanceId, Trouble};
use tokio::time::Instant;

use super::{latencies::Latencies, load::Load};
use crate::{
    breaker::{Before, Circuit, CircuitBreaker, Counted, Standing, Turn},
    measure,
    reports::Reports,
};

/// All instances that somebody picks from.
#[derive(Debug)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
    by_id: Mutex<HashMap<InstanceId, Weak<Peer>>>,
}

#[derive(Debug)]
struct Shared {
    rules: CircuitBreaker,
    /// Counts circuits that opened or closed; whoever has prepared a choice begins anew then.
    turns: AtomicUsize,
    reports: Reports,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
    /// At another one it is another process, of which nothing is known.
    address: Address,
    pub(crate) load: Load,
    pub(crate) latencies: Latencies,
    circuit: Mutex<Circuit>,
    ejections: AtomicU32,
    /// When the next call may find out whether it is back, if not at once.
    next_trial: Mutex<Option<Instant>>,
    /// When it was reported last.
    reported: Mutex<Option<Instant>>,
}

/// A call that tells nothing although much depends on it: nobody tries again for so long.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// No trial is waited for any longer: the call may be one that goes on for hours.
const LONGEST_TRIAL: Duration = Duration::from_secs(10);

// === impl Peers ===

impl Peers {
    pub(crate) fn new(rules: CircuitBreaker, reports: Reports) -> Self {
        measure::describe();
        let shared = Arc::new(Shared { rules, turns: AtomicUsize::new(0), reports });
        Self { shared, by_id: Mutex::default() }
    }

    /// Changes whenever a circuit opens or closes.
    pub(crate) fn turns(&self) -> usize {
        self.shared.turns.load(Ordering::Acquire)
    }

    /// How often shares that grow are looked at.
    pub(crate) fn step(&self) -> Duration {
        self.shared.rules.step()
    }

    /// What is known of each of these, in their order.
    pub(crate) fn of(&self, instances: &[Arc<Instance>]) -> Vec<Arc<Peer>> {
        let mut by_id = lock(&self.by_id);
        let now = Instant::now();
        let peers = instances.iter().map(|instance| {
            let known = by_id.get(&instance.id).and_then(Weak::upgrade);
            if let Some(peer) = known.filter(|peer| peer.address == instance.address) {
                return peer;
            }
            let peer = Arc::new(Peer::new(Arc::clone(&self.shared), instance.address.clone(), now));
            by_id.insert(instance.id.clone(), Arc::downgrade(&peer));
            peer
        });
        let peers: Vec<_> = peers.collect();
        // Those that nobody picks from any more are dropped before they outnumber the others by far.
        if by_id.len() == by_id.capacity() || by_id.len() > 2 * peers.len() + 64 {
            by_id.retain(|_, peer| peer.strong_count() > 0);
        }
        peers
    }
}

// === impl Peer ===

impl Peer {
    fn new(shared: Arc<Shared>, address: Address, now: Instant) -> Self {
        Self {
            shared,
            address,
            load: Load::default(),
            latencies: Latencies::default(),
            circuit: Mutex::new(Circuit::new(now)),
            ejections: AtomicU32::new(0),
            next_trial: Mutex::default(),
            reported: Mutex::new(None),
        }
    }

    /// Whether calls may go to it, and what part of its share of them.
    pub(crate) fn standing(&self, now: Instant) -> (Standing, f64) {
        let circuit = self.circuit();
        (circuit.standing(now), circuit.share(&self.shared.rules, now))
    }

    /// Claims the one call at a time that a half-open circuit lets through.
    pub(crate) fn claim_trial(&self) -> bool {
        let (mut next, now) = (lock(&self.next_trial), Instant::now());
        let claimed = next.is_none_or(|moment| now >= moment);
        if claimed {
            *next = Some(now + LONGEST_TRIAL);
        }
        claimed
    }

    /// Gives it back; `told` says whether it came to something. One that was not waited for lets in one more, which does no
    /// harm.
    pub(crate) fn end_trial(&self, told: bool) {
        *lock(&self.next_trial) = (!told).then(|| Instant::now() + TRIAL_PAUSE);
    }

    /// Counts its ejections: a call that began before one says nothing about what came after.
    pub(crate) fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Acquire)
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        lock(&self.circuit)
    }

    /// A call was answered; one that was overdue has counted as a failure before.
    pub(crate) fn answered(&self, id: &InstanceId, overdue: Option<Counted>) -> Before {
        let mut circuit = self.circuit();
        if let Some(counted) = overdue {
            circuit.take_back(counted);
        }
        let before = circuit.before();
        let turn = circuit.succeeded(&self.shared.rules, Instant::now());
        drop(circuit);
        if let Some(Turn::Closed) = turn {
            tracing::info!(%id, "it answers again; calls go to it as before, a few at first");
            self.shared.turns.fetch_add(1, Ordering::AcqRel);
        }
        before
    }

    /// It asks to be left alone for so long.
    pub(crate) fn hold(&self, instance: &Instance, time: Duration) {
        if self.circuit().hold(&self.shared.rules, time, Instant::now()) {
            self.ejections.fetch_add(1, Ordering::AcqRel);
            self.shared.turns.fetch_add(1, Ordering::AcqRel);
            measure::ejected(&instance.name);
            tracing::info!(id = %instance.id, ?time, "it asks to be left alone; passing it over for that long");
        }
    }

    /// A call that is overdue was answered after all, which tells nothing else.
    pub(crate) fn take_back(&self, counted: Counted) {
        self.circuit().take_back(counted);
    }

    pub(crate) fn failed(&self, instance: &Instance, trouble: Option<&Trouble>) {
        let now = Instant::now();
        let turn = self.circuit().failed(&self.shared.rules, jitter(), now);
        self.turned(instance, turn, trouble, now);
    }

    /// A call that goes on counts as failed from now on.
    pub(crate) fn overdue(&self, instance: &Instance) -> Counted {
        let (now, trouble) = (Instant::now(), Trouble::Timeout);
        let (turn, counted) = {
            let mut circuit = self.circuit();
            (circuit.failed(&self.shared.rules, jitter(), now), circuit.counted(now))
        };
        self.turned(instance, turn, Some(&trouble), now);
        counted
    }

    /// An answer is of no use to its caller. `before` is missing where it never counted as one.
    pub(crate) fn rejected(&self, instance: &Instance, before: Option<Before>) {
        let Some(before) = before else { return self.failed(instance, None) };
        let now = Instant::now();
        let turn = self.circuit().rejected(&self.shared.rules, before, jitter(), now);
        self.turned(instance, turn, None, now);
    }

    fn turned(&self, instance: &Instance, turn: Option<Turn>, trouble: Option<&Trouble>, now: Instant) {
        if let Some(Turn::Opened { ejection, failed_in_a_row }) = turn {
            self.ejections.fetch_add(1, Ordering::AcqRel);
            self.shared.turns.fetch_add(1, Ordering::AcqRel);
            measure::ejected(&instance.name);
            let trouble = trouble.map(tracing::field::display);
            tracing::warn!(id = %instance.id, ?ejection, failed_in_a_row, trouble, "calls keep failing; passing it over for a while");
        }
        // An answer may fail for what was asked; a connection that fails tells something of the instance.
        let of_the_connection = matches!(trouble, Some(Trouble::Refused | Trouble::Reset | Trouble::Timeout));
        if turn.is_some() || of_the_connection {
            self.report(&instance.id, trouble.cloned().unwrap_or(Trouble::Failing), now);
        }
    }

    fn report(&self, id: &InstanceId, trouble: Trouble, now: Instant) {
        let mut reported = lock(&self.reported);
        if reported.is_none_or(|last| now.saturating_duration_since(last) >= Reports::PAUSE) {
            *reported = Some(now);
            drop(reported);
            self.shared.reports.send(id, trouble);
        }
    }
}

fn jitter() -> f64 {
    0.8 + 0.4 * fastrand::f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
