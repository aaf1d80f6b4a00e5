//! The writer's loop.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Observation, Rounds};
use roundsman_protocol::{Clock, DiscoveryError};
use roundsman_registry::{Edit, Effect, Health, Limits, Registry};
use roundsman_store::{Foreign, RETRY_AFTER, Store, StoreError};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Request,
    batch::{Batch, Unwritten},
    operation::{Operation, What},
};
use crate::{metrics::Meters, store_state::StoreState};

/// Most requests in one batch.
const MAX_BATCH: usize = 1_024;
/// How often the store is asked whether it is there and still holds what was written.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the writer listens to.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) observations: mpsc::Receiver<Observation>,
    pub(crate) foreign: mpsc::Receiver<Foreign>,
}

/// The writer.
pub(crate) struct Task {
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rounds: Rounds,
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    pub(crate) state: Arc<StoreState>,
    pub(crate) limits: Limits,
    /// What was observed and is not in the store yet.
    pub(crate) unwritten: Unwritten,
    /// Until when requests are refused without asking the store, which just failed.
    pub(crate) refuse_until: Option<Instant>,
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
                Some(foreign) = inputs.foreign.recv() => self.adopt(foreign),
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
        let effects = self.registry.apply(&edits);
        for effect in &effects {
            self.count_flip(effect);
            if let Some(record) = effect.after.as_ref().or(effect.before.as_ref()) {
                self.unwritten.insert(record.key(), Arc::clone(record));
            }
        }
        self.follow(&effects, false);
        self.state.unwritten(self.unwritten.len());
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

    /// Takes over what another server committed. It is in the store already.
    fn adopt(&mut self, foreign: Foreign) {
        let edit = match foreign.change {
            roundsman_registry::Change::Put(record) => {
                Edit::Adopt { record, incarnation: self.registry.next_incarnation() }
            }
            roundsman_registry::Change::Remove(record) => {
                Edit::Remove { key: record.key(), reason: "removed by another server".into() }
            }
        };
        let effects = self.registry.apply(&[edit]);
        self.follow(&effects, true);
    }

    /// Tells the rounds whom to visit. `all`: also those whose health changed, because the rounds do not know it.
    fn follow(&self, effects: &[Effect], all: bool) {
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
            let error = unavailable(self.state.status().last_error.unwrap_or_default());
            self.meters.refused("store-unavailable");
            requests.drain(..).for_each(|request| request.refuse(error.clone()));
            return None;
        }
        let draft = self.registry.draft(self.limits);
        let observed = std::mem::take(&mut self.unwritten);
        let batch = Batch::plan(&self.registry, draft, requests, observed, self.clock.now());
        if batch.changes.is_empty() {
            batch.answer();
            return None;
        }
        Some(self.commit(batch))
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
        Operation::probe(&self.store)
    }

    fn finished(&mut self, what: What, result: Result<(), StoreError>, began: Instant) -> Option<Operation> {
        match (what, result) {
            (what, Ok(())) => {
                self.refuse_until = None;
                self.state.answered();
                self.succeeded(what, began)
            }
            (What::Commit(batch) | What::Refill(Some(batch)), Err(StoreError::GenerationLost)) => {
                Some(self.refill(Some(batch)))
            }
            (What::Probe | What::Refill(None), Err(StoreError::GenerationLost)) => Some(self.refill(None)),
            (what, Err(error)) => {
                self.failed(what, &error);
                None
            }
        }
    }

    fn succeeded(&mut self, what: What, began: Instant) -> Option<Operation> {
        match what {
            What::Probe => None,
            What::Refill(batch) => {
                self.meters.refills.inc();
                self.state.refilled();
                batch.map(|batch| self.commit(batch))
            }
            What::Commit(mut batch) => {
                self.meters.commits.inc();
                #[allow(clippy::cast_precision_loss, reason = "a batch is short")]
                self.meters.batch.observe(batch.changes.len() as f64);
                self.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
                self.state.committed(self.unwritten.len());
                let effects = self.registry.apply(&std::mem::take(&mut batch.edits));
                self.count_requests(&effects);
                self.follow(&effects, true);
                batch.answer();
                None
            }
        }
    }

    fn count_requests(&self, effects: &[Effect]) {
        for effect in effects {
            let (counter, record) = match (&effect.before, &effect.after) {
                (_, Some(after)) => (&self.meters.registrations, after),
                (Some(before), None) => (&self.meters.deregistrations, before),
                (None, None) => continue,
            };
            counter.inc();
            let known = &record.instance;
            tracing::debug!(namespace = %known.namespace, service = %known.name, id = %known.id, address = %known.address, reason = %effect.reason, "changed");
        }
    }

    fn failed(&mut self, what: What, error: &StoreError) {
        self.meters.store_errors.inc();
        self.state.failed(error);
        self.refuse_until = Some(Instant::now() + RETRY_AFTER);
        let (What::Commit(batch) | What::Refill(Some(batch))) = what else { return };
        for (key, last) in batch.refuse(&unavailable(error.to_string())) {
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
