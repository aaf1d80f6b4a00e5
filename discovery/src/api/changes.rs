//! What goes through the writer: registrations, drains and deregistrations.

use std::sync::Arc;

use roundsman_health::Nudge;
use roundsman_protocol::{DiscoveryError, InstanceId, Invalid, Registered, Registration};
use tokio::time::Instant;

use super::{caller::Caller, twins};
use crate::{method::Method, principal::Principal};

/// Room for an instance that is on its way.
#[derive(Debug)]
struct Claim<'a> {
    caller: &'a Caller,
    room: usize,
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
            self.owned().forget(&id);
        }
        self.answered(Method::Deregister, began, gone)
    }

    pub(super) async fn drain(&self, id: InstanceId, on: bool) -> Result<(), DiscoveryError> {
        let began = Instant::now();
        let drained = self.context.writer.drain(self.key(id), on, self.who()).await;
        self.answered(Method::Drain, began, drained)
    }

    fn who(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
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
        drop(claim);
        Ok(registered)
    }

    /// Room for one more instance of this caller.
    fn claim(&self, id: Option<&InstanceId>) -> Result<Claim<'_>, DiscoveryError> {
        let limit = self.context.config.max_instances_per_connection;
        let is_there = |id: &InstanceId| self.context.registry.find(&self.key(id.clone())).is_some();
        let room = self.owned().make_room(id, limit, is_there);
        if let Some(room) = room {
            return Ok(Claim { caller: self, room });
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

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.caller.owned().give_back(self.room);
    }
}
