//! Which caller keeps which instance registered, as far as this server's own connections tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use roundsman_registry::Key;

use crate::principal::Principal;

/// So many more than there are instances are remembered before those that are gone are looked for.
const SPARE: usize = 4_096;

/// Who registered which instance last, and is still connected.
#[derive(Debug, Default)]
pub(crate) struct Keepers(Mutex<HashMap<Key, Arc<Principal>>>);

// === impl Keepers ===

impl Keepers {
    /// A caller registered an instance. `instances`: how many there are; `is_there` tells of one.
    pub(crate) fn keep(&self, key: Key, by: &Arc<Principal>, instances: usize, is_there: impl Fn(&Key) -> bool) {
        let mut kept = self.kept();
        if kept.len() >= instances.saturating_mul(2).saturating_add(SPARE) {
            kept.retain(|key, _| is_there(key));
        }
        kept.insert(key, Arc::clone(by));
    }

    /// A caller took an instance out, or is gone.
    pub(crate) fn release(&self, key: &Key, by: &Principal) {
        let mut kept = self.kept();
        if kept.get(key).is_some_and(|known| **known == *by) {
            kept.remove(key);
        }
    }

    /// Who registered an instance last, and is still connected.
    pub(crate) fn of(&self, key: &Key) -> Option<Arc<Principal>> {
        self.kept().get(key).map(Arc::clone)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Arc<Principal>>> {
        // Nothing can panic between two related changes of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Door;

    fn key(n: usize) -> Key {
        Key { namespace: "shop".parse().unwrap(), id: format!("product-{n}").parse().unwrap() }
    }

    fn caller() -> Arc<Principal> {
        Arc::new(Principal::new(Door::Rpc, None, None))
    }

    #[test]
    fn the_last_one_keeps_it_until_it_is_gone() {
        let (keepers, first, second) = (Keepers::default(), caller(), caller());
        keepers.keep(key(1), &first, 1, |_| true);
        keepers.keep(key(1), &second, 1, |_| true);
        keepers.release(&key(1), &first);
        assert_eq!(keepers.of(&key(1)), Some(Arc::clone(&second)), "a connection that was replaced ends late");
        keepers.release(&key(1), &second);
        assert_eq!((keepers.of(&key(1)), keepers.of(&key(2))), (None, None));
    }

    #[test]
    fn those_that_are_gone_are_not_remembered_for_ever() {
        let (keepers, caller) = (Keepers::default(), caller());
        for n in 0..10 * SPARE {
            keepers.keep(key(n), &caller, 1, |known| *known == key(0));
        }
        assert!(keepers.kept().len() <= SPARE + 3);
        assert!(keepers.of(&key(0)).is_some());
    }
}
