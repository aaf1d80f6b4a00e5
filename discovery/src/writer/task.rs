//! The writer's loop.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Observation, Rounds};
use roundsman_protocol::{Clock, DiscoveryError, Namespace};
use roundsman_registry::{Edit, Effect, Health, Limits, Registry};
use roundsman_store::{Committed, Durable, Position, RETRY_AFTER, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Audit, Journal, Meters, Request, Tombstones, Troubled,
    batch::{Batch, Unwritten},
    operation::{Done, Operation, What},
};
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
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    pub(crate) state: Arc<StoreState>,
    pub(crate) limits: Limits,
    /// What was observed and is not in the store yet.
    pub(crate) unwritten: Unwritten,
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
                    Heard::Change(foreign) => self.adopt(foreign),
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
            if let Some(record) = effect.after.as_ref().or(effect.before.as_ref()) {
                self.unwritten.insert(record.key(), Arc::clone(record));
            }
        }
        self.follow(&effects, false);
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
                let current = self.registry.find(&key).filter(|record| record.incarnation == incarnation)?;
                if health == Health::Evicted && current.health != Health::Evicted {
                    self.meters.evicted(class.label());
                    let known = &current.instance;
                    tracing::warn!(namespace = %key.namespace, service = %known.name, id = %key.id, address = %known.address, %reason, "evicted");
                }
                Some(Edit::Observe { key, incarnation, health, reason, at })
            }
            Observation::Forget { key, incarnation, reason } => {
                let current = self.registry.find(&key)?;
                let same = current.incarnation == incarnation && current.health == Health::Evicted;
                same.then_some(Edit::Remove { key, reason })
            }
        }
    }

    fn count_flip(&self, effect: &Effect) {
        let (Some(before), Some(after)) = (&effect.before, &effect.after) else { return };
        if after.health == Health::Passing && before.health != Health::Suspect {
            let (id, address) = (&after.instance.id, &after.instance.address);
            let back = before.health == Health::Evicted;
            if back {
                self.meters.reinstatements.inc();
            }
            tracing::info!(service = %after.instance.name, %id, %address, "{}", if back { "reinstated" } else { "passing" });
        }
    }

    /// Tells the rounds whom to visit. `all`: also those whose health changed, because the rounds do not know it.
    pub(super) fn follow(&self, effects: &[Effect], all: bool) {
        for effect in effects {
            match (&effect.before, &effect.after) {
                (_, Some(after)) if all => self.rounds.track(after),
                (Some(before), None) => self.rounds.untrack(&before.key()),
                _ => {}
            }
        }
    }

    /// Plans what was asked for, together with what was observed, and begins to write it.
    fn begin(&mut self, requests: &mut Vec<Request>) -> Option<Operation> {
        let now = Instant::now();
        if self.refuse_until.is_some_and(|until| now < until) {
            return self.begin_with_the_rest(requests);
        }
        self.troubled.refuse(requests, now);
        let observed = self.troubled.writable(&mut self.unwritten, now);
        let seen = self.journal.take(now, |namespace| self.troubled.rests(namespace, now));
        let mut batch = self.plan(requests, observed);
        if !seen.is_empty() {
            batch.get_or_insert_default().seen = seen;
        }
        batch.map(|batch| self.commit(batch))
    }

    /// The store just failed: refuses requests without asking it, but for those that a full one takes.
    fn begin_with_the_rest(&mut self, requests: &mut Vec<Request>) -> Option<Operation> {
        let error = unavailable(self.state.status().last_error.unwrap_or_default());
        let refused = requests.extract_if(.., |request| !self.full || request.grows()).collect::<Vec<_>>();
        if !refused.is_empty() {
            refused.into_iter().for_each(|request| request.refuse(error.clone()));
        }
        self.begin_from_reserve(requests)
    }

    /// Writes removals and drains into a full store. What was observed stays in memory until there is room.
    fn begin_from_reserve(&mut self, requests: &mut Vec<Request>) -> Option<Operation> {
        if requests.is_empty() {
            return None;
        }
        let batch = self.plan(requests, Unwritten::new())?;
        Some(Operation::commit_from_reserve(&self.store, batch))
    }

    fn plan(&self, requests: &mut Vec<Request>, observed: Unwritten) -> Option<Batch> {
        let draft = self.registry.draft(self.limits);
        let now = self.clock.now();
        let mut batch = Batch::plan(&self.registry, draft, requests, observed, now);
        if batch.changes.is_empty() {
            batch.answer();
            return None;
        }
        let who = |key: &_| batch.by(key).map(|by| by.who());
        batch.planned = self.journal.planned(&batch.edits, &batch.changes, now, who);
        Some(batch)
    }

    fn commit(&self, batch: Batch) -> Operation {
        Operation::commit(&self.store, batch)
    }

    fn refill(&self, batch: Option<Batch>) -> Operation {
        let records = self.registry.records();
        tracing::warn!(instances = records.len(), "the store came back without its contents and is filled again");
        Operation::refill(&self.store, records, batch)
    }

    /// Nobody asked for anything: writes what was observed, or asks the store how it is.
    fn probe_or_write(&mut self, requests: &mut Vec<Request>) -> Operation {
        self.refuse_until = None;
        if let Some(operation) = self.begin(requests) {
            return operation;
        }
        Operation::probe(&self.store, self.audit.next(&self.registry, &self.unwritten))
    }

    fn finished(&mut self, what: What, result: Result<Done, StoreError>, began: Instant) -> Option<Operation> {
        match (what, result) {
            // A full store stays full for registrations, whatever the reserve lets through.
            (What::FromReserve(batch), Ok(Done::Written(done))) => {
                self.committed(batch, done, began);
                None
            }
            (what, Ok(done)) => {
                (self.refuse_until, self.full) = (None, false);
                self.state.answered();
                self.succeeded(what, done, began)
            }
            (
                What::Commit(batch) | What::FromReserve(batch) | What::Refill(Some(batch)),
                Err(StoreError::GenerationLost),
            ) => Some(self.refill(Some(batch))),
            (What::Probe | What::Refill(None) | What::Reload(_), Err(StoreError::GenerationLost)) => {
                Some(self.refill(None))
            }
            (What::Commit(batch), Err(error @ StoreError::Full { .. })) => self.split(batch, &error),
            (what, Err(error)) => {
                self.failed(what, &error);
                None
            }
        }
    }

    fn succeeded(&mut self, what: What, done: Done, began: Instant) -> Option<Operation> {
        match (what, done) {
            (What::Commit(batch) | What::FromReserve(batch), Done::Written(done)) => self.committed(batch, done, began),
            (What::Refill(batch), _) => {
                self.meters.refills.inc();
                self.state.refilled();
                return batch.map(|batch| self.commit(batch));
            }
            (What::Probe, Done::Missing(missing)) => self.write_back(missing),
            (What::Reload(reply), Done::Loaded(snapshot, aside)) => self.take_over(snapshot, &aside, reply),
            // No operation ends with what another one does.
            (What::Commit(_) | What::FromReserve(_) | What::Probe | What::Reload(_), _) => {}
        }
        None
    }

    fn committed(&mut self, mut batch: Batch, done: Committed, began: Instant) {
        for (namespace, error) in &done.failed {
            self.refused(batch.split_off(namespace), namespace, error);
        }
        self.journal.untold(done.untold, Instant::now());
        if !self.troubled.is_empty() {
            batch.changes.iter().for_each(|change| self.troubled.written(&change.key().namespace));
        }
        self.tombstones.committed(&batch.changes, done.position, Instant::now());
        self.meters.commits.inc();
        #[allow(clippy::cast_precision_loss, reason = "a batch is short")]
        self.meters.batch.observe(batch.changes.len() as f64);
        self.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
        self.state.committed(self.unwritten.len());
        let effects = self.apply(&std::mem::take(&mut batch.edits));
        self.count_requests(&effects, &batch);
        self.follow(&effects, true);
        batch.answer();
    }

    /// The store took others, but not this namespace.
    fn refused(&mut self, mut part: Batch, namespace: &Namespace, error: &StoreError) {
        self.meters.store_errors.inc();
        self.troubled.failed(namespace, error, Instant::now());
        self.journal.put_back(std::mem::take(&mut part.seen));
        let observed = part.refuse(&unavailable(error.to_string()));
        self.keep(observed);
    }

    fn count_requests(&self, effects: &[Effect], batch: &Batch) {
        for effect in effects {
            let (counter, record) = match (&effect.before, &effect.after) {
                (_, Some(after)) => (&self.meters.registrations, after),
                (Some(before), None) => (&self.meters.deregistrations, before),
                (None, None) => continue,
            };
            counter.inc();
            let (known, by) = (&record.instance, batch.by(&record.key()).map(tracing::field::display));
            tracing::debug!(namespace = %known.namespace, service = %known.name, id = %known.id, address = %known.address, reason = %effect.reason, by, "changed");
        }
    }

    /// There is no room for the batch. What takes none is written all the same.
    fn split(&mut self, mut batch: Batch, error: &StoreError) -> Option<Operation> {
        self.full = true;
        self.failing(error);
        self.journal.put_back(std::mem::take(&mut batch.seen));
        let (mut requests, observed) = batch.split(&unavailable(error.to_string()));
        self.keep(observed);
        self.begin_from_reserve(&mut requests)
    }

    fn failed(&mut self, what: What, error: &StoreError) {
        self.full = matches!(error, StoreError::Full { .. });
        self.failing(error);
        let (What::Commit(mut batch) | What::FromReserve(mut batch) | What::Refill(Some(mut batch))) = what else {
            return;
        };
        self.journal.put_back(std::mem::take(&mut batch.seen));
        let observed = batch.refuse(&unavailable(error.to_string()));
        self.keep(observed);
    }

    fn failing(&mut self, error: &StoreError) {
        self.meters.store_errors.inc();
        self.state.failed(error);
        self.refuse_until = Some(Instant::now() + RETRY_AFTER);
    }

    /// Keeps what was observed, to be written later.
    fn keep(&mut self, observed: Unwritten) {
        for (key, last) in observed {
            self.unwritten.entry(key).or_insert(last);
        }
        self.state.unwritten(self.unwritten.len());
    }

    /// The last batch before the server stops.
    async fn write_the_rest(&mut self, requests: &mut Vec<Request>) {
        let mut operation = self.begin(requests);
        while let Some(running) = operation.take() {
            let (what, result, began) = running.ended().await;
            operation = self.finished(what, result, began);
        }
        if !self.unwritten.is_empty() {
            tracing::warn!(changes = self.unwritten.len(), "stopping with observations that the store did not take");
        }
    }
}

fn unavailable(reason: String) -> DiscoveryError {
    DiscoveryError::StoreUnavailable { reason, retry_after: RETRY_AFTER }
}
