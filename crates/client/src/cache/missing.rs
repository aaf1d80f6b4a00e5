//! Instances that a server which is new to us does not know, or not yet.

use std::{collections::BTreeMap, sync::Arc};

use roundsman_protocol::{Instance, InstanceId, InstanceStatus, Removed};
use tokio::time::Instant;

use crate::snapshot::Stale;

/// Those that were known of a service when its server lost its memory, and have not registered again. What the server
/// says of one of them counts at once; the rest is given up when the grace is over.
#[derive(Debug, Default)]
pub(super) struct Missing {
    instances: BTreeMap<InstanceId, Arc<Instance>>,
    /// Since when they are doubted, and until when they are kept.
    kept: Option<(Stale, Instant)>,
}

// === impl Missing ===

impl Missing {
    /// A server that is new to us has answered: of all that was known, those that it does not tell are missing.
    pub(super) fn begin<'a>(&mut self, known: impl Iterator<Item = &'a Arc<Instance>>, stale: Stale, until: Instant) {
        self.instances.extend(known.map(|instance| (instance.id.clone(), Arc::clone(instance))));
        self.kept = Some((stale, until));
    }

    /// The server knows this one: it is back, or another one has its address.
    pub(super) fn back(&mut self, told: &Instance) {
        if self.instances.remove(&told.id).is_none() {
            self.instances.retain(|_, missing| missing.address != told.address);
        }
    }

    /// The server says that this one does not match. Whether it was missing, and is not kept any more.
    pub(super) fn gone(&mut self, removed: &Removed) -> bool {
        // It has registered again, and its first visit is still to come.
        let starting = removed.status == Some(InstanceStatus::Starting);
        !starting && self.instances.remove(&removed.id).is_some()
    }

    /// It is known under another service's name now. Whether it was missing.
    pub(super) fn moved(&mut self, id: &InstanceId) -> bool {
        self.instances.remove(id).is_some()
    }

    /// Gives them up when the grace is over.
    pub(super) fn give_up(&mut self, now: Instant) {
        if self.kept.is_some_and(|(_, until)| until <= now) {
            *self = Self::default();
        }
    }

    /// When that will be.
    pub(super) fn until(&self) -> Option<Instant> {
        self.kept.filter(|_| !self.instances.is_empty()).map(|(_, until)| until)
    }

    /// Since when there are any.
    pub(super) fn stale(&self) -> Option<Stale> {
        self.kept.filter(|_| !self.instances.is_empty()).map(|(stale, _)| stale)
    }

    /// All of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values()
    }
}
