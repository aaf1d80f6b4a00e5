//! Registrations and instances of version 2, and with another check, of version 1.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::too_old;
use crate::{
    address::Address,
    check::Check,
    error::Invalid,
    instance::{self, Flip, InstanceStatus, Outcome},
    meta::Meta,
    name::{InstanceId, Namespace, ServiceName},
    time::Timestamp,
};

/// What a service says of itself: [`crate::Registration`] without what came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Registration<C: Default = Check> {
    pub name: ServiceName,
    pub address: Address,
    #[serde(default)]
    pub id: Option<InstanceId>,
    #[serde(default)]
    pub check: C,
    #[serde(default)]
    pub tags: Vec<Box<str>>,
    #[serde(default)]
    pub meta: Meta,
    #[serde(default)]
    pub zone: Option<Box<str>>,
    #[serde(default)]
    pub version: Option<Box<str>>,
    #[serde(default = "instance::default_weight")]
    pub weight: u32,
}

/// The answer to a registration: [`crate::Registered`] without those who left for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Registered {
    pub id: InstanceId,
    pub outcome: Outcome,
}

/// One running copy of a service: [`crate::Instance`] without what came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Instance<C = Arc<Check>> {
    pub id: InstanceId,
    pub name: ServiceName,
    pub namespace: Namespace,
    pub address: Address,
    pub status: InstanceStatus,
    pub reason: Arc<str>,
    pub since: Timestamp,
    pub registered_at: Timestamp,
    pub check: C,
    pub tags: Box<[Box<str>]>,
    pub meta: Meta,
    pub zone: Option<Box<str>>,
    pub version: Option<Box<str>>,
    pub weight: u32,
    #[serde(default)]
    pub history: Box<[Flip]>,
}

/// A check as a version shows it.
pub trait Shown: Sized {
    /// This one.
    fn of(check: &Arc<Check>) -> Self;
    /// The one that it shows, as far as it does.
    fn shown(self) -> Arc<Check>;
}

// === impl Registration ===

impl<C> TryFrom<instance::Registration> for Registration<C>
where
    C: Default + TryFrom<Check, Error: Into<Invalid>>,
{
    type Error = Invalid;

    /// Who wants to be remembered for a time of its own must hear that it will not be. That a program keeps itself
    /// registered is left out: then it is as it was before.
    fn try_from(registration: instance::Registration) -> Result<Self, Invalid> {
        let instance::Registration {
            name,
            address,
            id,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            forget_after,
            again: _,
        } = registration;
        if forget_after.is_some() {
            return Err(too_old("forget_after"));
        }
        let check = check.try_into().map_err(Into::into)?;
        Ok(Self { name, address, id, check, tags, meta, zone, version, weight })
    }
}

impl<C: Default + Into<Check>> From<Registration<C>> for instance::Registration {
    fn from(registration: Registration<C>) -> Self {
        let Registration { name, address, id, check, tags, meta, zone, version, weight } = registration;
        let check = check.into();
        Self { name, address, id, check, tags, meta, zone, version, weight, forget_after: None, again: false }
    }
}

// === impl Registered ===

impl From<instance::Registered> for Registered {
    fn from(instance::Registered { id, outcome, replaced: _ }: instance::Registered) -> Self {
        Self { id, outcome }
    }
}

impl From<Registered> for instance::Registered {
    fn from(Registered { id, outcome }: Registered) -> Self {
        Self { id, outcome, replaced: Vec::new() }
    }
}

// === impl Instance ===

impl Shown for Arc<Check> {
    fn of(check: &Self) -> Self {
        Self::clone(check)
    }

    fn shown(self) -> Self {
        self
    }
}

impl<C: Shown> From<Arc<instance::Instance>> for Instance<C> {
    fn from(instance: Arc<instance::Instance>) -> Self {
        let instance = Arc::unwrap_or_clone(instance);
        Self {
            id: instance.id,
            name: instance.name,
            namespace: instance.namespace,
            address: instance.address,
            status: instance.status,
            reason: instance.reason,
            since: instance.since,
            registered_at: instance.registered_at,
            check: C::of(&instance.check),
            tags: instance.tags,
            meta: instance.meta,
            zone: instance.zone,
            version: instance.version,
            weight: instance.weight,
            history: instance.history,
        }
    }
}

impl<C: Shown> From<Instance<C>> for Arc<instance::Instance> {
    fn from(instance: Instance<C>) -> Self {
        Self::new(instance::Instance {
            id: instance.id,
            name: instance.name,
            namespace: instance.namespace,
            address: instance.address,
            status: instance.status,
            reason: instance.reason,
            since: instance.since,
            registered_at: instance.registered_at,
            check: instance.check.shown(),
            tags: instance.tags,
            meta: instance.meta,
            zone: instance.zone,
            version: instance.version,
            weight: instance.weight,
            history: instance.history,
            forget_after: None,
        })
    }
}
