//! What operators ask for, planned: drains, changes in part, and ids that are kept out.

use std::sync::Arc;

use roundsman_protocol::{DiscoveryError, Invalid, Patch, Patched, Timestamp, instance::Outcome};

use super::Draft;
use crate::{
    edit::{Edit, Key, LET_IN, drain},
    ledger::Ledger,
    record::Record,
};

// === impl Draft ===

impl Draft<'_> {
    /// Plans that an instance goes, and that its id is kept out until a moment. One that has passed ends that.
    ///
    /// # Errors
    /// When there is no such instance: a block needs something to stand on. When a block is to be ended, and there is none:
    /// whoever is registered there stays.
    pub fn block(&mut self, key: Key, until: Timestamp, by: &Arc<str>, now: Timestamp) -> Result<(), DiscoveryError> {
        let Some(known) = self.overlay.find(&key) else {
            return Err(DiscoveryError::NotRegistered { id: key.id });
        };
        let version = self.overlay.next_version(Some(&known), now);
        if until > now {
            self.plan(Edit::Block { key, until, by: Arc::clone(by), version, at: now });
        } else if known.is_blocked() {
            self.plan(Edit::Remove { key, reason: LET_IN.into(), version });
        } else {
            let rule = format!("`{}` is not kept out, so there is no block to end; nothing was changed", key.id);
            return Err(Invalid::new("block", rule).into());
        }
        Ok(())
    }

    /// Plans a deregistration by an operator, who is told of a block.
    ///
    /// # Errors
    /// When there is no such instance, or its id is kept out.
    pub fn dismiss(&mut self, key: Key, now: Timestamp) -> Result<(), DiscoveryError> {
        if let Some(known) = self.overlay.find(&key) {
            refuse_blocked(&known, now)?;
        }
        self.deregister(key, now)
    }

    /// Plans a change in part, on top of what the earlier requests of the batch leave. It leaves one on probation there.
    ///
    /// # Errors
    /// When there is no such instance, or its id is kept out; when what it would be breaks a rule; when a limit is reached.
    pub fn update(&mut self, key: Key, patch: &Patch, now: Timestamp) -> Result<Patched, DiscoveryError> {
        let Some(known) = self.overlay.find(&key) else {
            return Err(DiscoveryError::NotRegistered { id: key.id });
        };
        refuse_blocked(&known, now)?;
        let wanted = patch.apply(&known.instance);
        wanted.validate()?;
        let before = Arc::clone(&known.instance);
        if known.would_say(&wanted) {
            return Ok(Patched { outcome: Outcome::Unchanged, after: Arc::clone(&before), before });
        }
        self.take_room(&key.namespace, wanted.bytes(), Some(&known))?;
        let version = self.overlay.next_version(Some(&known), now);
        let edit = Edit::Update { key: key.clone(), registration: Arc::new(wanted), version, at: now };
        self.plan(edit);
        let after = self.overlay.find(&key).map_or_else(|| Arc::clone(&before), |after| Arc::clone(&after.instance));
        Ok(Patched { outcome: Outcome::Updated, before, after })
    }

    /// Plans a drain by the owner, or its end. One that is on probation is drained once it is reinstated. What an operator
    /// drained stays so.
    ///
    /// # Errors
    /// When there is no such instance, or its id is kept out.
    pub fn drain(&mut self, key: Key, on: bool, now: Timestamp) -> Result<(), DiscoveryError> {
        self.plan_drain(key, on, false, now)
    }

    /// Plans a drain by an operator, which no registration takes back, or the end of any drain.
    ///
    /// # Errors
    /// When there is no such instance, or its id is kept out.
    pub fn hold(&mut self, key: Key, on: bool, now: Timestamp) -> Result<(), DiscoveryError> {
        self.plan_drain(key, on, true, now)
    }

    fn plan_drain(&mut self, key: Key, on: bool, operator: bool, now: Timestamp) -> Result<(), DiscoveryError> {
        let Some(known) = self.overlay.find(&key) else {
            return Err(DiscoveryError::NotRegistered { id: key.id });
        };
        refuse_blocked(&known, now)?;
        if drain(&known, on, operator, known.asked.version, now).is_some() {
            let version = self.overlay.next_version(Some(&known), now);
            self.plan(Edit::Drain { key, on, operator, version, at: now });
        }
        Ok(())
    }
}

/// Until when an id is kept out, if it still is.
pub(super) fn blocked_until(known: &Record, now: Timestamp) -> Option<Timestamp> {
    known.asked.blocked.filter(|until| *until > now)
}

pub(super) fn refuse_blocked(known: &Record, now: Timestamp) -> Result<(), DiscoveryError> {
    let Some(until) = blocked_until(known, now) else { return Ok(()) };
    let (id, reason) = (known.instance.id.clone(), Box::from(&*known.instance.reason));
    Err(DiscoveryError::Blocked { id, until, reason })
}
