//! What goes through the writer: registrations, drains and deregistrations.

use std::{sync::Arc, time::Duration};

use roundsman_health::Nudge;
use roundsman_protocol::{
    DiscoveryError, Dismissed, InstanceId, Invalid, Patch, Patched, Registered, Registration, Timestamp, limits,
    rpc::Wait, time,
};
use tokio::time::Instant;

use super::{caller::Caller, twins};
use crate::{method::Method, principal::Principal};

/// Room for an instance that is on its way.
#[derive(Debug)]
struct Claim<'a> {
    caller: &'a Caller,
    room: usize,
    id: Option<InstanceId>,
}

// === impl Caller ===

impl Caller {
    pub(super) async fn register(&self, registration: Registration) -> Result<Registered, DiscoveryError> {
        let began = Instant::now();
        let registered = self.claim_and_register(registration).await;
        self.answered(Method::Register, began, registered)
    }

    pub(super) async fn deregister(&self, id: InstanceId) -> Result<(), DiscoveryError> {
        let began = Instant::now();
        let (key, by) = (self.key(id.clone()), self.who());
        let gone = self.context.writer.deregister(key, by).await;
        if matches!(gone, Ok(()) | Err(DiscoveryError::NotRegistered { .. })) {
            self.no_longer_own(&id);
        }
        self.answered(Method::Deregister, began, gone)
    }

    pub(super) async fn dismiss(&self, id: InstanceId, block: Option<Wait>) -> Result<Dismissed, DiscoveryError> {
        let began = Instant::now();
        let dismissed = self.claim_and_dismiss(id, block).await;
        self.answered(Method::Dismiss, began, dismissed)
    }

    async fn claim_and_dismiss(&self, id: InstanceId, block: Option<Wait>) -> Result<Dismissed, DiscoveryError> {
        let until = block.map(|Wait(block)| until(self.context.clock.now(), block)).transpose()?;
        let key = self.key(id.clone());
        // Whoever asks to be remembered for a time of its own is kept by nobody, also where the one who registered it has not
        // hung up yet.
        let is_kept = self.context.registry.find(&key).is_some_and(|record| record.forget_after().is_none());
        let keepers = Some(&self.context.keepers).filter(|_| is_kept);
        let keeper = keepers.and_then(|keepers| keepers.other_than(&self.principal, &key));
        let blocked_until = until.filter(|_| block.is_some_and(|Wait(block)| !block.is_zero()));
        let known = Dismissed { kept_by: keeper.map(|keeper| keeper.who()), blocked_until };
        let dismissed = self.context.writer.dismiss(key, until, known, self.who()).await?;
        self.no_longer_own(&id);
        Ok(dismissed)
    }

    pub(super) async fn update(&self, id: InstanceId, patch: Patch) -> Result<Patched, DiscoveryError> {
        let began = Instant::now();
        let patched = self.context.writer.update(self.key(id), patch, self.who()).await;
        self.answered(Method::Update, began, patched)
    }

    pub(super) async fn drain(&self, id: InstanceId, on: bool) -> Result<(), DiscoveryError> {
        let began = Instant::now();
        // Whoever did not register it, on this connection, is not its owner.
        let operator = !self.owned().has(&id);
        let drained = self.context.writer.drain(self.key(id), on, operator, self.who()).await;
        self.answered(Method::Drain, began, drained)
    }

    fn who(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }

    fn no_longer_own(&self, id: &InstanceId) {
        self.owned().forget(id);
    }

    /// Has everything visited that was registered by this caller and not deregistered.
    pub(super) fn close(&self) {
        let ids = self.owned().take();
        for id in ids {
            self.context.rounds.nudge(&self.key(id), Nudge::SessionClosed);
        }
    }

    async fn claim_and_register(&self, mut registration: Registration) -> Result<Registered, DiscoveryError> {
        let claim = self.claim(registration.id.as_ref())?;
        self.complete(&mut registration)?;
        let twins = twins::of(&self.context, &self.namespace, &registration).await;
        let (namespace, by) = (self.namespace.clone(), self.who());
        let registered = self.context.writer.register(namespace, registration, twins, by).await?;
        // Before the room is given back, so that it is counted all the time.
        self.owned().keep(registered.id.clone());
        self.be_known_as_owner();
        drop(claim);
        Ok(registered)
    }

    /// Room for one more instance of this caller.
    fn claim(&self, id: Option<&InstanceId>) -> Result<Claim<'_>, DiscoveryError> {
        let limit = self.context.config.max_instances_per_connection;
        let is_there = |id: &InstanceId| self.context.registry.find(&self.key(id.clone())).is_some();
        let room = self.owned().make_room(id, limit, is_there);
        if let Some(room) = room {
            return Ok(Claim { caller: self, room, id: id.cloned() });
        }
        let value = u64::try_from(limit).unwrap_or(u64::MAX);
        Err(DiscoveryError::LimitReached { limit: "--max-instances-per-connection".to_owned(), value })
    }

    /// Checks a registration, and fills in what it leaves to the server.
    fn complete(&self, registration: &mut Registration) -> Result<(), Invalid> {
        registration.validate()?;
        // A host name is checked when it is resolved.
        if let Some(addr) = registration.address.socket_addr() {
            self.context.targets.permits(addr.ip()).map_err(|why| Invalid::new("address", why))?;
        }
        let config = &self.context.config;
        registration.check = std::mem::take(&mut registration.check).or_defaults(config.interval, config.timeout)?;
        registration.name = self.context.registry.shared_name(&self.namespace, registration.name.clone());
        Ok(())
    }
}

/// When a block ends that begins now.
fn until(now: Timestamp, block: Duration) -> Result<Timestamp, Invalid> {
    if block <= limits::MAX_BLOCK {
        return Ok(now.plus(block));
    }
    let (longest, block) = (time::display(limits::MAX_BLOCK), time::display(block));
    Err(Invalid::new("block", format!("must not be longer than {longest}, got {block}")))
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.caller.owned().give_back(self.room, self.id.as_ref());
    }
}
