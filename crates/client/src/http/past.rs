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
    /// Whoever was asked last wants to be left alone until then.
    not_before: Option<Instant>,
}

// === impl Past ===

impl Past {
    pub(super) fn new(plan: &Plan) -> Self {
        let (passed_over, avoiding) = (plan.avoiding.clone(), plan.avoiding.len());
        let (since, backoff) = (Instant::now(), Backoff::new(PAUSES.0, PAUSES.1));
        Self { tries: Vec::new(), begun: 0, since, passed_over, avoiding, backoff, not_before: None }
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

    /// The pause before somebody is asked again who was asked before.
    pub(super) fn pause(&mut self) -> Duration {
        let asked = self.not_before.map(|moment| moment.saturating_duration_since(Instant::now()));
        self.backoff.next().max(asked.unwrap_or_default())
    }

    /// The last answer asked for so much time.
    pub(super) fn hold(&mut self, time: Option<Duration>) {
        self.not_before = time.map(|time| Instant::now() + time.min(LONGEST));
    }
}
