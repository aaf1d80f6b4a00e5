//! The writer's loop.

use std::{collections::HashSet, sync::Arc, time::Duration};

use roundsman_health::{Observation, Rounds};
use roundsman_protocol::Clock;
use roundsman_registry::{Edit, Effect, Health, Key, Limits, Registry, Tombstones};
use roundsman_store::{Durable, Position};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Audit, Journal, Meters, Request, Troubled, operation::Operation, unwritten::Unwritten};
use crate::{follower::Heard, store_state::StoreState, subsets::Groups};

/// Most requests in one batch.
const MAX_BATCH: usize = 1_024;
/// How often the store is asked whether it is there and still holds what was written.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the writer listens to.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) observations: mpsc::Receiver<Observation>,
    pub(crate) foreign: mpsc::Receiver<Heard>,
}

/// The writer.
pub(crate) struct Task {
    pub(crate) registry: Arc<Registry>,
    /// Who has which share of a service.
    pub(crate) groups: Arc<Groups>,
    pub(crate) store: Arc<dyn Durable>,
    pub(crate) rounds: Rounds,
    /// The name of this server.
    pub(crate) server: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    pub(crate) state: Arc<StoreState>,
    pub(crate) limits: Limits,
    /// What the store has to be told and was not yet.
    pub(crate) unwritten: Unwritten,
    /// Whom the batch on its way to the store tells something observed of.
    pub(crate) writing: HashSet<Key>,
    /// How often in a row another server was faster than requests.
    pub(crate) conflicts: u32,
    /// Until when requests are refused without asking the store, which just failed.
    pub(crate) refuse_until: Option<Instant>,
    /// Whether it failed for want of room: then what takes nothing is not refused.
    pub(crate) full: bool,
    /// What was removed lately.
    pub(crate) tombstones: Tombstones,
    pub(crate) audit: Audit,
    /// What the history does not have yet.
    pub(crate) journal: Journal,
    /// Namespaces that the store refuses.
    pub(crate) troubled: Troubled,
    /// Who waits until the store is read again.
    pub(crate) gap: Option<oneshot::Sender<Position>>,
}

// === impl Task ===

impl Task {
    /// Runs until `stop`, and then until everything that was asked for is answered and everything observed is written,
    /// as far as the store lets it.
    pub(crate) async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) {
        let mut operation: Option<Operation> = None;
        let (mut requests, mut observations) = (Vec::new(), Vec::new());
        let mut probe = interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if operation.is_none() {
                operation = self.gap.take().map(|reply| Operation::reload(&self.store, reply));
            }
            let idle = operation.is_none();
            tokio::select! {
                biased;
                count = inputs.observations.recv_many(&mut observations, MAX_BATCH), if !inputs.observations.is_closed() || !inputs.observations.is_empty() => {
                    if count > 0 { self.observe(observations.drain(..)) }
                    if idle && self.refuse_until.is_none() { operation = self.begin(&mut requests) }
                }
                result = Operation::running(&mut operation) => {
                    if let Some(Operation { what, began, .. }) = operation.take() {
                        operation = self.finished(what, result, began);
                    }
                }
                Some(heard) = inputs.foreign.recv() => match heard {
                    Heard::Change(foreign) => self.adopt(foreign.standing, false),
                    Heard::Gap(reply) => self.gap = Some(reply),
                },
                count = inputs.requests.recv_many(&mut requests, MAX_BATCH), if idle => {
                    if count == 0 { break }
                    operation = self.begin(&mut requests);
                }
                _ = probe.tick(), if idle => operation = Some(self.probe_or_write(&mut requests)),
                () = stop.cancelled(), if !inputs.requests.is_closed() => inputs.requests.close(),
            }
        }
        self.write_the_rest(&mut requests).await;
    }

    /// Applies what the rounds observed: visible at once.
    fn observe(&mut self, observations: impl Iterator<Item = Observation>) {
        let mut edits = Vec::new();
        for observation in observations {
            edits.extend(self.edit(observation));
        }
        let effects = self.apply(&edits);
        self.journal.observed(&effects, self.clock.now());
        for effect in &effects {
            self.count_flip(effect);
            match (&effect.before, &effect.after) {
                (_, Some(record)) => self.unwritten.seen(record),
                (Some(record), None) => self.unwritten.forgotten(record),
                (None, None) => {}
            }
        }
        self.follow(&effects);
        self.state.unwritten(self.unwritten.len());
    }

    /// Carries edits out, and lets those know who share a service among clients.
    pub(super) fn apply(&self, edits: &[Edit]) -> Vec<Effect> {
        let effects = self.registry.apply(edits);
        self.groups.changed(&effects);
        effects
    }

    fn edit(&self, observation: Observation) -> Option<Edit> {
        match observation {
            Observation::Health { key, incarnation, health, class, reason, at } => {
                let current = self.registry.find(&key).filter(|record| record.asked.incarnation == incarnation)?;
                if health == Health::Evicted && !current.is_evicted() {
                    self.meters.evicted(class.label());
                    let known = &current.instance;
                    tracing::warn!(namespace = %key.namespace, service = %known.name, id = %key.id, address = %known.address, %reason, "evicted");
                }
                let by = Arc::clone(&self.server);
                Some(Edit::Observe { key, incarnation, health, reason, by, at })
            }
            Observation::Forget { key, incarnation, reason } => Some(Edit::Forget { key, incarnation, reason }),
        }
    }

    fn count_flip(&self, effect: &Effect) {
        let (Some(before), Some(after)) = (&effect.before, &effect.after) else { return };
        if after.observed.health == Health::Passing && before.observed.health != Health::Suspect {
            let (id, address) = (&after.instance.id, &after.instance.address);
            let back = before.is_evicted();
            if back {
                self.meters.reinstatements.inc();
            }
            tracing::info!(service = %after.instance.name, %id, %address, "{}", if back { "reinstated" } else { "passing" });
        }
    }

    /// Tells the rounds whom to visit, and how everybody stands. That is news to them also where they observed it themselves:
    /// in between lies what other servers observed.
    pub(super) fn follow(&self, effects: &[Effect]) {
        for effect in effects {
            match (&effect.before, &effect.after) {
                (_, Some(after)) => self.rounds.track(after),
                (Some(before), None) => self.rounds.untrack(&before.key()),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
