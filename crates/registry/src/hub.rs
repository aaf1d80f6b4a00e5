//! Who waits for what, so that a change wakes only those whom it concerns.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use roundsman_protocol::{Namespace, ServiceName};
use tokio::sync::Notify;

/// What a watcher waits for: a service, or anything in the namespace.
type Interest = (Namespace, Option<ServiceName>);

/// The watchers that wait at this moment.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    waiting: Mutex<HashMap<Interest, HashMap<u64, Arc<Notify>>>>,
    next: AtomicU64,
    count: AtomicUsize,
}

/// One that waits. Leaves the hub when dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    hub: &'a Hub,
    number: u64,
    interests: Vec<Interest>,
    woken: Arc<Notify>,
}

// === impl Hub ===

impl Hub {
    /// Starts to listen. A change between this call and [`Waiter::woken`] is not lost.
    pub(crate) fn listen(&self, namespace: &Namespace, services: &[ServiceName]) -> Waiter<'_> {
        let mut interests: Vec<Interest> =
            services.iter().map(|service| (namespace.clone(), Some(service.clone()))).collect();
        if interests.is_empty() {
            interests.push((namespace.clone(), None));
        }
        let woken = Arc::new(Notify::new());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lock();
        for interest in &interests {
            waiting.entry(interest.clone()).or_default().insert(number, Arc::clone(&woken));
        }
        drop(waiting);
        self.count.fetch_add(1, Ordering::Relaxed);
        Waiter { hub: self, number, interests, woken }
    }

    /// Wakes whoever waits for one of these services or for anything in the namespace.
    pub(crate) fn wake<'s>(&self, namespace: &Namespace, services: impl Iterator<Item = &'s ServiceName>) {
        let waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        let keys = services.map(|service| Some(service.clone())).chain([None]);
        let concerned = keys.filter_map(|service| waiting.get(&(namespace.clone(), service)));
        for notify in concerned.flat_map(HashMap::values) {
            notify.notify_one();
        }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Interest, HashMap<u64, Arc<Notify>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiter ===

impl Waiter<'_> {
    /// Waits for the first change since [`Hub::listen`] or since the last call. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.hub.lock();
        for interest in &self.interests {
            if let Some(others) = waiting.get_mut(interest) {
                others.remove(&self.number);
                if others.is_empty() {
                    waiting.remove(interest);
                }
            }
        }
        drop(waiting);
        self.hub.count.fetch_sub(1, Ordering::Relaxed);
    }
}
