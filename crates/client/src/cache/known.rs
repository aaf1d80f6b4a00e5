//! A set of instances, and the digest that tells a server in a few bytes what is in it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use roundsman_protocol::{Digest, Instance, InstanceId, Removed, Update};

/// Instances by their ids. The digest is kept as they change: it is there when a connection is, and nobody hashes tens of
/// thousands of instances just when everybody reconnects.
#[derive(Debug, Default)]
pub(crate) struct Known {
    instances: BTreeMap<InstanceId, Entry>,
    digest: Digest,
}

#[derive(Debug)]
struct Entry {
    instance: Arc<Instance>,
    fingerprint: u64,
}

/// What an update changes in a set: the difference between what was known and what is known now.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) removed: Vec<Removed>,
    pub(crate) changed: Vec<Arc<Instance>>,
}

/// Why something is gone of which the server tells only that it is.
const GONE: &str = "no longer registered";

// === impl Known ===

impl Known {
    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// All, sorted by id.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().map(|entry| &entry.instance)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &InstanceId> {
        self.instances.keys()
    }

    /// Takes an instance in. What is the same stays as it was, so that nobody sees a change. Whether there is one.
    pub(crate) fn insert(&mut self, instance: Arc<Instance>) -> bool {
        if self.instances.get(&instance.id).is_some_and(|known| known.instance == instance) {
            return false;
        }
        self.remove(&instance.id);
        let fingerprint = instance.fingerprint();
        self.digest.add(&instance.id, fingerprint);
        self.instances.insert(instance.id.clone(), Entry { instance, fingerprint });
        true
    }

    pub(crate) fn remove(&mut self, id: &InstanceId) -> Option<Arc<Instance>> {
        let Entry { instance, fingerprint } = self.instances.remove(id)?;
        self.digest.remove(id, fingerprint);
        Some(instance)
    }

    /// Makes it these, and no others. Whether that is a change.
    pub(crate) fn replace(&mut self, instances: Vec<Arc<Instance>>) -> bool {
        let told: HashSet<InstanceId> = instances.iter().map(|instance| instance.id.clone()).collect();
        let gone: Vec<_> = self.ids().filter(|id| !told.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| drop(self.remove(id)));
        let changed = instances.into_iter().filter(|instance| self.insert(Arc::clone(instance))).count();
        !gone.is_empty() || changed > 0
    }

    /// Carries out an update that is no snapshot, and tells what is another now than before.
    pub(crate) fn apply(&mut self, update: Update) -> Difference {
        let missing = missing(&update, self.values());
        let removed = update.removed.into_iter().chain(missing);
        let removed = removed.filter(|removed| self.remove(&removed.id).is_some()).collect();
        let changed = update.instances.into_iter().filter(|instance| self.insert(Arc::clone(instance))).collect();
        Difference { removed, changed }
    }
}

/// Those of `known` that are in the parts that an update tells anew, and are not told.
pub(crate) fn missing<'a>(update: &Update, known: impl Iterator<Item = &'a Arc<Instance>>) -> Vec<Removed> {
    let mask = update.parts.iter().filter(|part| **part < 64).fold(0_u64, |mask, part| mask | 1 << part);
    if mask == 0 {
        return Vec::new();
    }
    let told: HashSet<&InstanceId> = update.instances.iter().map(|instance| &instance.id).collect();
    let missing = known.filter(|known| known.id.part_mask() & mask != 0 && !told.contains(&known.id));
    let removed =
        missing.map(|gone| Removed { id: gone.id.clone(), name: gone.name.clone(), status: None, reason: GONE.into() });
    removed.collect()
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::Cursor;

    use super::*;
    use crate::cache::table::tests::instance;

    fn many(ids: impl IntoIterator<Item = u32>) -> Vec<Arc<Instance>> {
        ids.into_iter().map(|n| Arc::new(instance("product", &format!("p{n}")))).collect()
    }

    fn quiet() -> Update {
        Update::unchanged(Cursor { epoch: 2, revision: 1 })
    }

    fn check(known: &Known) {
        assert_eq!(*known.digest(), Digest::of(known.values().map(|instance| &**instance)));
    }

    #[test]
    fn the_digest_is_that_of_what_is_in_it() {
        let mut known = Known::default();
        assert!(known.replace(many(0..500)));
        check(&known);
        let first = Arc::clone(known.values().next().unwrap());
        assert!(!known.replace(many(0..500)), "the same again is no change");
        assert!(Arc::ptr_eq(&first, known.values().next().unwrap()));
        assert!(known.insert(Arc::new(Instance { weight: 7, ..Instance::clone(&first) })));
        assert!(known.remove(&"p7".parse().unwrap()).is_some() && known.remove(&"p7".parse().unwrap()).is_none());
        check(&known);
        assert!(known.replace(many(400..600)));
        assert_eq!(known.len(), 200);
        check(&known);
        known.replace(vec![]);
        assert!(known.is_empty() && *known.digest() == Digest::default());
    }

    #[test]
    fn of_the_parts_that_are_told_anew_the_rest_is_gone() {
        let mut known = Known::default();
        known.replace(many(0..1_000));
        // The server knows the same, but p3 is gone, p5 is another and p1000 is new.
        let mut theirs = Known::default();
        theirs.replace(many((0..=1_000).filter(|n| *n != 3)));
        theirs.insert(Arc::new(Instance { weight: 9, ..instance("product", "p5") }));
        let mask = known.digest().parts_that_differ(theirs.digest());
        let parts: Vec<u8> = (0..64).filter(|part| mask & 1 << part != 0).collect();
        assert!((1..=3).contains(&parts.len()));
        let told = theirs.values().filter(|instance| instance.id.part_mask() & mask != 0).cloned().collect();
        let Difference { removed, changed } = known.apply(Update { parts, instances: told, ..quiet() });
        assert_eq!(removed.iter().map(|removed| removed.id.as_str()).collect::<Vec<_>>(), ["p3"]);
        let mut changed: Vec<_> = changed.iter().map(|instance| instance.id.as_str()).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["p1000", "p5"], "nothing for what stayed the same");
        assert_eq!(known.digest(), theirs.digest());
        // All of a part may be gone, and a part that there is not harms nobody.
        let part = u8::try_from(known.ids().next().unwrap().part()).unwrap();
        let gone = known.apply(Update { parts: vec![part, 200], ..quiet() }).removed;
        assert!(!gone.is_empty() && gone.iter().all(|gone| gone.id.part() == usize::from(part)));
        check(&known);
    }

    #[test]
    fn what_was_never_known_is_not_told_as_gone() {
        let mut known = Known::default();
        known.replace(many(0..3));
        let gone = |id: &str| Removed {
            id: id.parse().unwrap(),
            name: "product".parse().unwrap(),
            status: None,
            reason: "deregistered".into(),
        };
        let told = known.apply(Update { removed: vec![gone("p9"), gone("p1")], instances: many([2, 4]), ..quiet() });
        assert_eq!((told.removed.len(), told.changed.len()), (1, 1), "p1 is gone and p4 is new");
        check(&known);
    }

    /// What a digest costs is mostly the fingerprints, which are computed when an instance comes in.
    #[test]
    #[ignore = "prints a figure"]
    fn fifty_thousand_are_digested_as_they_come() {
        let (mut known, instances) = (Known::default(), many(0..50_000));
        let began = tokio::time::Instant::now();
        known.replace(instances);
        println!("50,000 instances are taken in within {:?}", began.elapsed());
        let began = tokio::time::Instant::now();
        assert_eq!(known.digest().clone().count, 50_000);
        println!("and their digest is there within {:?}", began.elapsed());
    }
}
