//! What is said of an instance, and what becomes of that where another server says otherwise.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use roundsman_protocol::time::display;
use roundsman_registry::Health;
use tokio::time::Instant;

use super::{Name, Visitor, is_handed_out};
use crate::{
    line::Line,
    machine::{Flip, Next, Step},
    observation::{Class, Observation},
    probe::Finding,
    shared::Shared,
};

/// Nobody takes observations any more.
pub(super) struct Deaf;

// === impl Visitor ===

impl Visitor {
    /// Tells what changed.
    pub(super) async fn report(&mut self, step: Step, finding: &Finding, took: Duration) -> Result<(), Deaf> {
        if step.next == Next::Forget {
            return Box::pin(self.forget()).await;
        }
        let flip = step.flip.or_else(|| self.is_well_all_the_same(finding).then_some(Flip::Reinstated));
        if flip.is_none() && !self.is_news(finding) {
            return Ok(());
        }
        let mut class = finding.class.unwrap_or(Class::Silence);
        let mut reason = finding.detail.reason(&self.check, took);
        let health = match flip {
            None => self.machine.health(),
            Some(Flip::Passing) => Health::Passing,
            Some(Flip::Reinstated) => {
                self.shared.counters.reinstatements.fetch_add(1, Ordering::Relaxed);
                Health::Passing
            }
            Some(Flip::Suspect) => Health::Suspect,
            Some(Flip::Evicted) => Health::Evicted,
            Some(Flip::NeverStarted) => {
                let deadline = display(self.shared.settings.start_deadline);
                class = Class::StartDeadline;
                reason = format!("no visit passed within {deadline} of registration; last {reason}").into();
                Health::Evicted
            }
        };
        Box::pin(self.shared.observe(&self.name, &self.seat.line, health, class, reason)).await
    }

    /// Whether it passed and never was out here, while another server evicted it: that one may have lost its way, or be gone by
    /// now, and then nobody else would bring it back.
    fn is_well_all_the_same(&self, finding: &Finding) -> bool {
        let well = finding.class == Some(Class::Passed) && self.machine.health() == Health::Passing;
        well && self.seat.line.shown() == Health::Evicted
    }

    /// Whether a probation of its own was over before this server came to look, as after a restart: then a visit that passes
    /// must not bring it back.
    pub(super) fn is_forgotten(&self) -> bool {
        let own = self.seat.line.forget_after();
        own.is_some() && self.machine.is_forgotten(&self.shared.rules(self.interval, own), Instant::now())
    }

    /// Says that its probation is over. That is the end of this visitor, unless another server saw the instance well in time.
    pub(super) async fn forget(&mut self) -> Result<(), Deaf> {
        self.shared.forget(&self.name, &self.seat.line).await?;
        while self.seat.line.shown() == Health::Evicted {
            self.seat.line.nudged().await;
        }
        let (health, now) = (self.seat.line.shown(), Instant::now());
        self.machine.begin_anew(health, now);
        self.seat.settle(is_handed_out(health), false, now);
        Ok(())
    }
}

// === impl Shared ===

impl Shared {
    pub(super) async fn observe(
        &self,
        name: &Name,
        line: &Line,
        health: Health,
        class: Class,
        reason: Arc<str>,
    ) -> Result<(), Deaf> {
        if health == Health::Evicted {
            self.counters.evictions.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(id = %name.key.id, ?health, %reason, "health changed");
        let Name { key, incarnation } = name.clone();
        // First, or else what is heard of another server meanwhile would be overlooked.
        line.show(health);
        let observation = Observation::Health { key, incarnation, health, class, reason, at: self.clock.now() };
        self.observations.send(observation).await.map_err(|_| Deaf)
    }

    pub(super) async fn forget(&self, name: &Name, line: &Line) -> Result<(), Deaf> {
        let reason = line.forget_after().map_or_else(|| Arc::from("probation is over"), forgotten_after);
        self.let_go(name, reason).await
    }

    /// Says that an instance need not be kept in mind any longer.
    pub(super) async fn let_go(&self, name: &Name, reason: Arc<str>) -> Result<(), Deaf> {
        tracing::debug!(id = %name.key.id, %reason, "forgotten");
        let Name { key, incarnation } = name.clone();
        let forget = Observation::Forget { key, incarnation, reason };
        self.observations.send(forget).await.map_err(|_| Deaf)
    }
}

/// Why an instance is forgotten that is remembered for a time of its own.
fn forgotten_after(own: Duration) -> Arc<str> {
    format!("not well again within {} of its eviction", display(own)).into()
}
