//! What the writer asks the store for, and what becomes of the answers.

use roundsman_protocol::{DiscoveryError, Namespace};
use roundsman_registry::{Change, Edit, Effect};
use roundsman_store::{Committed, RETRY_AFTER, Standing, StoreError};
use tokio::time::Instant;

use super::{
    Request, Task,
    batch::Batch,
    operation::{Done, Operation, What},
    unwritten::Unwritten,
};

/// How often in a row requests are planned anew because another server was faster.
const MAX_CONFLICTS: u32 = 16;

// === impl Task ===

impl Task {
    /// Plans what was asked for, together with what was observed, and begins to write it.
    pub(super) fn begin(&mut self, requests: &mut Vec<Request>) -> Option<Operation> {
        let now = Instant::now();
        if self.refuse_until.is_some_and(|until| now < until) {
            return self.begin_with_the_rest(requests);
        }
        self.troubled.refuse(requests, now);
        let due = self.troubled.writable(&mut self.unwritten, now);
        let seen = self.journal.take(now, |namespace| self.troubled.rests(namespace, now));
        let mut batch = self.plan(requests, due);
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
        let batch = self.plan(requests, Unwritten::default())?;
        Some(Operation::commit_from_reserve(&self.store, batch))
    }

    fn plan(&self, requests: &mut Vec<Request>, due: Unwritten) -> Option<Batch> {
        let draft = self.registry.draft(self.limits);
        let now = self.clock.now();
        let mut batch = Batch::plan(&self.registry, draft, requests, due, now);
        if batch.changes.is_empty() {
            batch.answer();
            return None;
        }
        let who = |key: &_| batch.by(key).map(|by| by.who());
        batch.planned = self.journal.planned(&batch.edits, &batch.changes, now, who);
        Some(batch)
    }

    fn commit(&mut self, batch: Batch) -> Operation {
        self.writing = batch.due.keys().cloned().collect();
        Operation::commit(&self.store, batch)
    }

    fn refill(&self, batch: Option<Batch>) -> Operation {
        let records = self.registry.records();
        tracing::warn!(instances = records.len(), "the store came back without its contents and is filled again");
        Operation::refill(&self.store, records, self.tombstones.all(), batch)
    }

    /// Nobody asked for anything: writes what was observed, or asks the store how it is.
    pub(super) fn probe_or_write(&mut self, requests: &mut Vec<Request>) -> Operation {
        self.refuse_until = None;
        if let Some(operation) = self.begin(requests) {
            return operation;
        }
        Operation::probe(&self.store, self.audit.next(&self.registry, &self.unwritten))
    }

    pub(super) fn finished(
        &mut self,
        what: What,
        result: Result<Done, StoreError>,
        began: Instant,
    ) -> Option<Operation> {
        self.writing.clear();
        match (what, result) {
            // A full store stays full for registrations, whatever the reserve lets through.
            (What::FromReserve(batch), Ok(Done::Written(done))) => self.committed(batch, done, began),
            (what, Ok(done)) => {
                self.refuse_until = None;
                if std::mem::take(&mut self.full) {
                    self.journal.try_again();
                }
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
            (What::Commit(batch) | What::FromReserve(batch), Done::Written(done)) => {
                return self.committed(batch, done, began);
            }
            (What::Refill(batch), _) => {
                self.meters.refills.inc();
                self.state.refilled();
                let namespaces =
                    self.registry.records().iter().map(|record| record.instance.namespace.clone()).collect();
                self.journal.lost(namespaces, self.clock.now());
                return batch.map(|batch| self.commit(batch));
            }
            (What::Probe, Done::Missing(missing)) => self.write_back(missing),
            (What::Reload(reply), Done::Loaded(snapshot, aside)) => self.take_over(snapshot, &aside, reply),
            // No operation ends with what another one does.
            (What::Commit(_) | What::FromReserve(_) | What::Probe | What::Reload(_), _) => {}
        }
        None
    }

    fn committed(&mut self, mut batch: Batch, done: Committed, began: Instant) -> Option<Operation> {
        let mut again = Vec::new();
        for (namespace, error) in done.failed {
            let part = batch.split_off(&namespace);
            match error {
                StoreError::Conflict { standings } => again.extend(self.overtaken(part, standings)),
                error => self.refused(part, &namespace, &error),
            }
        }
        self.journal.untold(done.untold, Instant::now());
        if !self.troubled.is_empty() {
            batch.changes.iter().for_each(|change| self.troubled.written(&change.record().instance.namespace));
        }
        let now = self.clock.now();
        // Whoever is not forgotten after all is heard of, and may not pass for removed.
        let gone = batch.changes.iter().filter_map(Change::tombstone).filter(|gone| !done.left.contains(&gone.key));
        for tombstone in gone {
            self.tombstones.add(tombstone, now);
        }
        self.meters.commits.inc();
        #[allow(clippy::cast_precision_loss, reason = "a batch is short")]
        self.meters.batch.observe(batch.changes.len() as f64);
        self.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
        self.state.committed(self.unwritten.len());
        // What was heard to be removed later stays so.
        let tombstones = &self.tombstones;
        let holds = |edit: &Edit| match edit {
            Edit::Planned { after: Some(after), .. } => after.asked.version > tombstones.version(&after.key()),
            _ => true,
        };
        batch.edits.retain(holds);
        let effects = self.apply(&std::mem::take(&mut batch.edits));
        self.count_requests(&effects, &batch);
        self.follow(&effects);
        batch.answer();
        self.ask_again(again)
    }

    /// Another server on the same store was faster. What it did is taken in, and what was asked for is given back, to be
    /// planned on that.
    fn overtaken(&mut self, mut part: Batch, standings: Vec<Standing>) -> Vec<Request> {
        self.meters.conflicts.inc();
        self.journal.put_back(std::mem::take(&mut part.seen));
        let (requests, due) = part.reopen();
        self.keep(due);
        standings.into_iter().for_each(|standing| self.adopt(standing, true));
        requests
    }

    fn ask_again(&mut self, mut requests: Vec<Request>) -> Option<Operation> {
        let conflicts = std::mem::take(&mut self.conflicts) + 1;
        if requests.is_empty() {
            return None;
        }
        if conflicts > MAX_CONFLICTS {
            let error = unavailable("another server changes the same instances all the time".to_owned());
            requests.into_iter().for_each(|request| request.refuse(error.clone()));
            return None;
        }
        let next = self.begin(&mut requests)?;
        self.conflicts = conflicts;
        Some(next)
    }

    /// The store took others, but not this namespace.
    fn refused(&mut self, mut part: Batch, namespace: &Namespace, error: &StoreError) {
        self.meters.store_errors.inc();
        self.troubled.failed(namespace, error, Instant::now());
        self.journal.put_back(std::mem::take(&mut part.seen));
        self.keep(part.refuse(&unavailable(error.to_string())));
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
        let (mut requests, due) = batch.split(&unavailable(error.to_string()));
        self.keep(due);
        self.begin_from_reserve(&mut requests)
    }

    fn failed(&mut self, what: What, error: &StoreError) {
        self.full = matches!(error, StoreError::Full { .. });
        self.failing(error);
        let (What::Commit(mut batch) | What::FromReserve(mut batch) | What::Refill(Some(mut batch))) = what else {
            return;
        };
        self.journal.put_back(std::mem::take(&mut batch.seen));
        self.keep(batch.refuse(&unavailable(error.to_string())));
    }

    fn failing(&mut self, error: &StoreError) {
        self.meters.store_errors.inc();
        self.state.failed(error);
        self.refuse_until = Some(Instant::now() + RETRY_AFTER);
    }

    /// Keeps what the store was not told, for later.
    fn keep(&mut self, due: Unwritten) {
        self.unwritten.put_back(due);
        self.state.unwritten(self.unwritten.len());
    }

    /// The last batch before the server stops.
    pub(super) async fn write_the_rest(&mut self, requests: &mut Vec<Request>) {
        self.journal.try_again();
        let mut operation = self.begin(requests);
        while let Some(running) = operation.take() {
            let (what, result, began) = running.ended().await;
            operation = self.finished(what, result, began);
        }
        if !self.unwritten.is_empty() {
            tracing::warn!(changes = self.unwritten.len(), "stopping with observations that the store did not take");
        }
        if self.journal.waiting() > 0 {
            tracing::warn!(events = self.journal.waiting(), "stopping with events that the store did not take");
        }
    }
}

fn unavailable(reason: String) -> DiscoveryError {
    DiscoveryError::StoreUnavailable { reason, retry_after: RETRY_AFTER }
}
