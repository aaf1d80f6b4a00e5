//! What a change did, client by client.

use std::{mem, sync::Arc};

use roundsman_protocol::InstanceId;

use super::pairs::{Lease, Pairs};

/// How the subset of a client that is there changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The client.
    pub client: Arc<str>,
    /// What it has now and had not.
    pub gained: Vec<InstanceId>,
    /// What it had and has no longer.
    pub lost: Vec<InstanceId>,
}

impl Pairs {
    /// What changed since this was last asked for. Of clients that are gone nothing is told: nobody
    /// waits for it.
    pub(super) fn moved(&mut self) -> Vec<Moved> {
        let before = mem::take(&mut self.before);
        let moved = before.into_iter().filter_map(|(client, had)| self.moved_of(client, &had)).collect();
        for instance in mem::take(&mut self.retired) {
            self.instances.release(instance);
        }
        moved
    }

    fn moved_of(&self, client: u32, had: &[u32]) -> Option<Moved> {
        let client = self.clients.get(client).filter(|client| matches!(client.lease, Lease::Held(_)))?;
        let gained = self.without(&client.set, had);
        let lost = self.without(had, &client.set);
        let changed = !gained.is_empty() || !lost.is_empty();
        changed.then(|| Moved { client: Arc::clone(&client.name), gained, lost })
    }

    /// The ids of those that are in the one and not in the other; both sorted.
    fn without(&self, these: &[u32], others: &[u32]) -> Vec<InstanceId> {
        let only = these.iter().filter(|number| others.binary_search(number).is_err());
        only.filter_map(|number| Some(self.instances.get(*number)?.id.clone())).collect()
    }
}
