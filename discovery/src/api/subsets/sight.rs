//! A client's share at one moment.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use roundsman_protocol::{Cursor, Instance, InstanceId, Query, Removed, Update};
use roundsman_registry::Snapshot;

use crate::{api::caller::Caller, subsets::Membership};

static MOVED: LazyLock<Arc<str>> = LazyLock::new(|| "moved to other clients".into());
static REMOVED: LazyLock<Arc<str>> = LazyLock::new(|| "removed".into());

/// A client's share at one moment.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) cursor: Cursor,
    pub(super) instances: BTreeMap<InstanceId, Arc<Instance>>,
    query: Query,
    all: Snapshot,
}

impl Sight {
    pub(super) fn of(caller: &Caller, query: &Query, member: &mut Membership) -> Self {
        // In this order: what is not in this snapshot any more is not told, and what comes after it wakes the member.
        let share = member.share();
        let all = caller.context.registry.snapshot(&caller.namespace, query);
        let instances = share.into_iter().filter_map(|id| Some((id.clone(), all.one(query, &id)?)));
        Self { cursor: all.cursor(), instances: instances.collect(), query: query.clone(), all }
    }

    /// The answer to a watcher of whom nothing is known.
    pub(super) fn everything(&self) -> Update {
        let instances = self.instances.values().cloned().collect();
        Update { snapshot: true, instances, ..Update::unchanged(self.cursor) }
    }

    /// The answer to a watcher that had some instances, of which some are the same still. `removed`: of whom is known
    /// why they are gone.
    pub(super) fn update<'a>(
        &self,
        had: impl Iterator<Item = &'a InstanceId>,
        is_same: impl Fn(&Arc<Instance>) -> bool,
        removed: &[Removed],
    ) -> Update {
        let had: HashSet<&InstanceId> = had.collect();
        let is_news = |instance: &&Arc<Instance>| !had.contains(&instance.id) || !is_same(instance);
        let instances = self.instances.values().filter(is_news).cloned().collect();
        let removed: HashMap<_, _> = removed.iter().map(|removed| (&removed.id, removed)).collect();
        let mut lost: Vec<_> = had.into_iter().filter(|id| !self.instances.contains_key(*id)).collect();
        lost.sort_unstable();
        let removed = lost.into_iter().filter_map(|id| self.removed(id, removed.get(id).copied())).collect();
        Update { instances, removed, ..Update::unchanged(self.cursor) }
    }

    /// Whether the query no longer matches an instance, so that nobody has it.
    pub(super) fn is_gone(&self, id: &InstanceId) -> bool {
        self.all.one(&self.query, id).is_none()
    }

    /// What is told of an instance that the watcher no longer has.
    fn removed(&self, id: &InstanceId, known: Option<&Removed>) -> Option<Removed> {
        let name = self.query.services.first()?.clone();
        let id = id.clone();
        let removed = match (self.all.find(&id), known) {
            (Some(record), _) if self.query.describes(&record.instance) => {
                Removed { id, name, status: Some(record.status()), reason: Arc::clone(&MOVED) }
            }
            (_, Some(known)) => known.clone(),
            (Some(record), None) => {
                Removed { id, name, status: Some(record.status()), reason: Arc::clone(&record.instance.reason) }
            }
            (None, None) => Removed { id, name, status: None, reason: Arc::clone(&REMOVED) },
        };
        Some(removed)
    }
}
