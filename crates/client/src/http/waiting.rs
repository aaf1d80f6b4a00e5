//! What a call does when nobody is there: waits for somebody, or asks those who are about to leave.

use std::sync::Arc;

use roundsman_protocol::InstanceId;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{attempt::Target, engine::Course, past::Past};

impl Course<'_> {
    /// Where the next try goes, after a pause if it goes where one went before.
    pub(super) async fn target(&self, past: &mut Past) -> Option<Target> {
        let mut paused = false;
        while let Some(target) = self.choose(past) {
            let id = target.instance.id.clone();
            // After a pause it may be another one, who asked for more.
            if !past.asked(&id) || (paused && past.held(&id).is_zero()) {
                return Some(target);
            }
            target.put_back();
            if !self.pause(past, &id).await {
                return None;
            }
            paused = true;
        }
        let (balancer, snapshot) = (self.balancer, self.callee.feed().snapshot());
        if balancer.first(&snapshot).is_some() {
            // There is somebody, whom the caller wants to avoid.
            return None;
        }
        self.somebody(past).await
    }

    /// Waits until somebody is there, or finds one who is about to leave.
    async fn somebody(&self, past: &Past) -> Option<Target> {
        let until = self.wait_until(past);
        let mut changes = self.callee.feed().changes();
        let come = async { changes.wait_for(|snapshot| self.balancer.first(snapshot).is_some()).await.is_ok() };
        let leaving = async {
            let leaving = self.callee.leaving().await;
            let usable = leaving
                .iter()
                .find(|instance| self.balancer.admits(instance) && !past.passed_over().contains(&instance.id));
            match usable {
                Some(instance) => Target { instance: Arc::clone(instance), pick: None },
                None => std::future::pending().await,
            }
        };
        let found = async {
            tokio::select! {
                biased;
                there = come => if there { self.choose(past) } else { None },
                target = leaving => Some(target),
            }
        };
        timeout_at(until, found).await.ok().flatten()
    }

    /// Lets some time pass before this instance is asked again. Whether there was any left.
    async fn pause(&self, past: &mut Past, id: &InstanceId) -> bool {
        let (now, until) = (Instant::now(), self.wait_until(past));
        if self.plan.to.is_none() && past.is_refused() && now < until {
            // It is gone, or restarts. The list will tell; if it does not, what time there is goes to the tries that are left.
            let left = self.plan.limits.tries.saturating_sub(past.begun).max(1);
            let mut changes = self.callee.feed().changes();
            let changed = async {
                changes.mark_unchanged();
                drop(changes.changed().await);
            };
            let _ = timeout((until - now) / left, changed).await;
            return Instant::now() < self.deadline;
        }
        let pause = past.pause(id);
        if now + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }

    /// How long somebody is waited for.
    fn wait_until(&self, past: &Past) -> Instant {
        self.deadline.min(past.since + self.plan.limits.wait_for_instance.min(super::call::LONGEST))
    }
}
