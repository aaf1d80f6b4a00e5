//! What a call has tried so far.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Instance, InstanceId, Trouble};
use tokio::time::Instant;

use super::{
    Try,
    call::{LONGEST, Plan},
    failure::Failure,
};
use crate::backoff::Backoff;

/// First and longest pause before the same instance is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// The tries so far.
#[derive(Debug)]
pub(super) struct Past {
    /// Those that came to nothing.
    pub(super) tries: Vec<Try>,
    /// How many there were, those under way included.
    pub(super) begun: u32,
    /// When the call began.
    pub(super) since: Instant,
    /// Those to be avoided, then those that were asked.
    passed_over: Vec<InstanceId>,
    avoiding: usize,
    backoff: Backoff,
    /// Those who want to be left alone, and until when.
    held: Vec<(InstanceId, Instant)>,
}

// === impl Past ===

impl Past {
    pub(super) fn new(plan: &Plan) -> Self {
        let (passed_over, avoiding) = (plan.avoiding.clone(), plan.avoiding.len());
        let (since, backoff) = (Instant::now(), Backoff::new(PAUSES.0, PAUSES.1));
        Self { tries: Vec::new(), begun: 0, since, passed_over, avoiding, backoff, held: Vec::new() }
    }

    /// A try begins. Its number, counted from one.
    pub(super) fn begin(&mut self, instance: &InstanceId) -> u32 {
        self.passed_over.push(instance.clone());
        self.begun = self.begun.saturating_add(1);
        self.begun
    }

    /// A try came to nothing.
    pub(super) fn note(&mut self, instance: &Arc<Instance>, failure: &Failure) {
        tracing::debug!(instance = %instance.id, address = %instance.address, detail = failure.detail, "a try failed");
        self.tries.push(Try {
            instance: Arc::clone(instance),
            trouble: failure.trouble.clone(),
            detail: failure.detail.clone(),
            maybe_sent: failure.maybe_sent,
        });
    }

    /// Those to be avoided, and those that were asked.
    pub(super) fn passed_over(&self) -> &[InstanceId] {
        &self.passed_over
    }

    /// Whether it was asked in this call.
    pub(super) fn asked(&self, id: &InstanceId) -> bool {
        self.passed_over.get(self.avoiding..).unwrap_or_default().contains(id)
    }

    /// Whether nobody was there, where the last try went.
    pub(super) fn is_refused(&self) -> bool {
        self.tries.last().is_some_and(|tried| !tried.maybe_sent && tried.trouble == Trouble::Refused)
    }

    /// The pause before this one is asked again, who was asked before.
    pub(super) fn pause(&mut self, id: &InstanceId) -> Duration {
        self.backoff.next().max(self.held(id))
    }

    /// For how long this one wants to be left alone.
    pub(super) fn held(&self, id: &InstanceId) -> Duration {
        let held = self.held.iter().find(|(held, _)| held == id);
        held.map(|(_, until)| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Its latest answer asked for so much time.
    pub(super) fn hold(&mut self, id: &InstanceId, time: Option<Duration>) {
        self.held.retain(|(held, _)| held != id);
        self.held.extend(time.map(|time| (id.clone(), Instant::now() + time.min(LONGEST))));
    }
}
