//! What changed, for those who watch.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::Arc,
};

use roundsman_protocol::{Cursor, Digest, Instance, Known, Query, Removed, Subset, Update};

use super::{Entry, Records};

/// What there is to tell somebody who knows of what was before.
#[derive(Debug)]
pub(crate) enum Look {
    /// This.
    News(Update),
    /// Nothing, up to this moment.
    Nothing(Cursor),
}

// === impl Records ===

impl Records {
    /// What there is to tell somebody who asks for what a query matches, and knows how that was.
    pub(crate) fn look(&self, query: &Query, after: Option<Cursor>, known: Option<&Known>) -> Look {
        let reaches_back = |after: &Cursor| {
            after.epoch == self.cursor.epoch && (self.forgotten..=self.cursor.revision).contains(&after.revision)
        };
        let Some(after) = after.filter(reaches_back).map(|after| after.revision) else {
            let matching = self.matching(query);
            let same = |digest: &Digest| *digest == Digest::of(matching.iter().map(|instance| &**instance));
            if matches!(known, Some(Known::Digest(digest)) if query.subset.is_none() && same(digest)) {
                return Look::News(Update::unchanged(self.cursor));
            }
            return Look::News(self.snapshot(matching));
        };
        if query.subset.is_some() {
            return self.look_at_subset(query, after, known);
        }
        let mut update = Update::unchanged(self.cursor);
        let gone = self.gone.iter().filter(|(revision, removed)| *revision > after && query.names(&removed.name));
        update.removed.extend(gone.map(|(_, removed)| removed.clone()));
        for Entry { instance, .. } in self.instances.values().filter(|entry| entry.changed > after) {
            if query.matches(instance) {
                update.instances.push(Arc::clone(instance));
            } else if query.names(&instance.name) {
                let (id, name) = (instance.id.clone(), instance.name.clone());
                let (status, reason) = (Some(instance.status), Arc::clone(&instance.reason));
                update.removed.push(Removed { id, name, status, reason });
            }
        }
        if update.is_unchanged() { Look::Nothing(self.cursor) } else { Look::News(update) }
    }

    /// A subset is told as a whole whenever it is another one.
    fn look_at_subset(&self, query: &Query, after: u64, known: Option<&Known>) -> Look {
        let chosen = self.matching(query);
        let changed =
            |instance: &Arc<Instance>| self.instances.get(&instance.id).is_some_and(|entry| entry.changed > after);
        let same = match known {
            Some(Known::Ids(ids)) => {
                ids.len() == chosen.len() && chosen.iter().all(|instance| ids.contains(&instance.id))
            }
            _ => false,
        };
        if same && !chosen.iter().any(changed) {
            return Look::Nothing(self.cursor);
        }
        Look::News(self.snapshot(chosen))
    }

    fn snapshot(&self, instances: Vec<Arc<Instance>>) -> Update {
        Update { snapshot: true, instances, ..Update::unchanged(self.cursor) }
    }
}

/// The same ones for the same client, for as long as they are there.
pub(super) fn choose(instances: &mut Vec<Arc<Instance>>, subset: &Subset) {
    instances.sort_by_cached_key(|instance| {
        let mut hasher = DefaultHasher::new();
        (&subset.client, instance.id.as_str()).hash(&mut hasher);
        hasher.finish()
    });
    instances.truncate(usize::try_from(subset.size).unwrap_or(usize::MAX));
}
