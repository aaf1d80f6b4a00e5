//! What a visit counts for: as evidence, or as nothing where the fault may be ours.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use roundsman_protocol::time::display;
use roundsman_registry::Health;
use tokio::time::Instant;

use super::{Visitor, caller::FORGIVEN_STOPS, is_handed_out};
use crate::{
    machine::{Evidence, Step},
    observation::Class,
    probe::{Detail, Finding},
};

// === impl Visitor ===

impl Visitor {
    pub(super) fn judge(&mut self, finding: &Finding, now: Instant) -> Step {
        let mut rules = self.shared.rules(self.interval, self.seat.line.forget_after());
        let evidence = evidence(finding.class);
        if self.machine.health() == Health::Starting {
            // Nobody could be seen to start while we were stopped.
            rules.start_deadline += self.shared.lag.since(self.machine.since(), now);
        }
        let brink = self.machine.at_the_brink(&rules, evidence, now);
        let hold = self.seat.weigh(evidence, brink, now);
        let step = self.machine.visited(&rules, evidence, hold, now);
        self.seat.settle(is_handed_out(self.machine.health()), self.machine.held(), now);
        step
    }

    /// What to make of a visit that was ended because others needed its place.
    pub(super) fn cut_short(&self, took: Duration) -> Finding {
        let text = format!("no answer in {}, cut short because too many visits wait for one", display(took));
        tracing::debug!(id = %self.name.key.id, %text, "a visit gave way to others");
        // Whom an operator's own timeout would have given up on has been heard out.
        let patient = took >= self.shared.settings.timeout;
        Finding { class: patient.then_some(Class::Silence), detail: Detail::Text(text.into()) }
    }

    /// The finding, unless it only shows that we were not there to listen; then nothing. On a server that lags all the time
    /// that holds for a few visits in a row: otherwise nobody who hangs would ever be found out.
    pub(super) fn unless_void(&mut self, finding: Finding, start: Instant, now: Instant) -> Finding {
        let due = start + self.timeout;
        let patience = match finding.class {
            Some(Class::Silence | Class::Unresolved) => Some(self.timeout),
            // Who waits for us in vain hangs up after a time of its own.
            Some(Class::Reset) => Some(self.timeout.min(self.shared.settings.timeout)),
            None => return finding,
            Some(_) => None,
        };
        // The end of this visit may be late where the heartbeat is not: there are several threads.
        let late = self.shared.lag.since(start, now).max(now.saturating_duration_since(due));
        if patience.is_none_or(|patience| late <= patience / 4) {
            self.voided = 0;
            return finding;
        }
        if self.voided >= FORGIVEN_STOPS {
            return finding;
        }
        self.voided += 1;
        self.shared.void();
        let late = display(late);
        let void = format!("void, because this server was {late} late");
        tracing::debug!(id = %self.name.key.id, class = ?finding.class, %late, "a visit is void: this server was late");
        Finding { class: None, detail: Detail::Text(void.into()) }
    }

    /// Whether this tells something new of an instance that does not pass yet.
    pub(super) fn is_news(&mut self, finding: &Finding) -> bool {
        if self.machine.health() != Health::Starting || finding.class.is_none() {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        (finding.class, &finding.detail).hash(&mut hasher);
        let found = Some(hasher.finish());
        std::mem::replace(&mut self.told, found) != found
    }
}

fn evidence(class: Option<Class>) -> Evidence {
    match class {
        None => Evidence::Nothing,
        Some(Class::Passed) => Evidence::Pass,
        Some(Class::Refused) => Evidence::Proof,
        // A name server that fails is as likely to be our trouble as theirs.
        Some(Class::Silence | Class::Unresolved) => Evidence::Silence,
        Some(Class::Reset | Class::Status | Class::Garbage | Class::Stranger | Class::Forbidden) => Evidence::Failure,
        Some(Class::StartDeadline | Class::Ttl) => Evidence::Failure,
    }
}
