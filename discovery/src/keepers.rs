//! Which caller keeps which instance registered, as far as this server's own connections tell.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use roundsman_protocol::Namespace;
use roundsman_registry::Key;

use crate::principal::Principal;

/// Knows what it registered and did not deregister.
pub(crate) trait Owner: Send + Sync {
    /// Whether that is one of them.
    fn owns(&self, key: &Key) -> bool;
}

/// Who registered something, and is still connected. It is asked rarely: what each of them owns is kept by itself alone.
#[derive(Default)]
pub(crate) struct Keepers(Mutex<HashMap<u64, Keeper>>);

#[derive(Clone)]
struct Keeper {
    principal: Arc<Principal>,
    namespace: Namespace,
    owner: Weak<dyn Owner>,
}

// === impl Keepers ===

impl Keepers {
    /// A caller is about to own something in a namespace.
    pub(crate) fn enter(&self, principal: &Arc<Principal>, namespace: &Namespace, owner: Weak<dyn Owner>) {
        let keeper = Keeper { principal: Arc::clone(principal), namespace: namespace.clone(), owner };
        self.lock().insert(principal.session(), keeper);
    }

    /// A caller is gone.
    pub(crate) fn leave(&self, session: u64) {
        self.lock().remove(&session);
    }

    /// Who else than this caller keeps an instance registered.
    pub(crate) fn other_than(&self, principal: &Principal, key: &Key) -> Option<Arc<Principal>> {
        // Whoever is asked may be gone with the answer, which takes the lock.
        let others: Vec<Keeper> = {
            let keepers = self.lock();
            let of_namespace = keepers.values().filter(|keeper| keeper.namespace == key.namespace);
            of_namespace.filter(|keeper| *keeper.principal != *principal).cloned().collect()
        };
        let owns = |keeper: &Keeper| keeper.owner.upgrade().is_some_and(|owner| owner.owns(key));
        others.into_iter().find(owns).map(|keeper| keeper.principal)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Keeper>> {
        // Nothing can panic between two related changes of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keepers").field("len", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Door;

    /// Owns the instances of one service.
    struct Session(&'static str);

    impl Owner for Session {
        fn owns(&self, key: &Key) -> bool {
            key.id.as_str().starts_with(self.0)
        }
    }

    fn key(namespace: &str, id: &str) -> Key {
        Key { namespace: namespace.parse().unwrap(), id: id.parse().unwrap() }
    }

    #[test]
    fn whoever_is_connected_keeps_what_it_owns_in_its_namespace() {
        let (keepers, shop) = (Keepers::default(), "shop".parse().unwrap());
        let callers = [(); 3].map(|()| Arc::new(Principal::new(Door::Rpc, None, None)));
        let sessions = [Session("product"), Session("order")].map(Arc::new);
        for (caller, session) in callers.iter().zip(&sessions) {
            let session: Arc<dyn Owner> = Arc::clone(session) as _;
            keepers.enter(caller, &shop, Arc::downgrade(&session));
        }
        let of = |namespace, id| keepers.other_than(&callers[2], &key(namespace, id));
        assert_eq!(of("shop", "product-1"), Some(Arc::clone(&callers[0])));
        assert_eq!(of("shop", "order-1"), Some(Arc::clone(&callers[1])));
        assert_eq!((of("shop", "till-1"), of("default", "order-1")), (None, None));
        assert_eq!(keepers.other_than(&callers[0], &key("shop", "product-1")), None, "that is itself");
        keepers.leave(callers[0].session());
        drop(sessions);
        assert_eq!((of("shop", "product-1"), of("shop", "order-1")), (None, None));
    }
}
