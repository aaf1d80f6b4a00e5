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

/// How many services a watcher enters or leaves while others wait for the lock.
const TURN: usize = 64;
/// No revision: nobody woke the waiter.
const ASLEEP: u64 = u64::MAX;

/// What a watcher waits for: a service, or anything in the namespace.
type Interest = (Namespace, Option<ServiceName>);
type Waiting = HashMap<Interest, HashMap<u64, Arc<Bell>>>;

/// The watchers that wait at this moment.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    count: AtomicUsize,
}

/// One that waits. Leaves the hub when dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    hub: &'a Hub,
    number: u64,
    interests: Vec<Interest>,
    bell: Arc<Bell>,
}

/// A watch that is counted until this is dropped.
#[derive(Debug)]
pub struct Counted<'a>(&'a AtomicUsize);

/// What wakes a waiter.
#[derive(Debug)]
struct Bell {
    notify: Notify,
    /// The revision before the first change that rang since somebody listened: up to there nothing concerned the waiter.
    before: AtomicU64,
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
        let bell = Arc::new(Bell { notify: Notify::new(), before: AtomicU64::new(ASLEEP) });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        for some in interests.chunks(TURN) {
            let mut waiting = self.lock();
            for interest in some {
                waiting.entry(interest.clone()).or_default().insert(number, Arc::clone(&bell));
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Waiter { hub: self, number, interests, bell }
    }

    /// Wakes whoever waits for one of these services or for anything in the namespace. `before`: the namespace's revision
    /// before their changes.
    pub(crate) fn wake<'s>(&self, namespace: &Namespace, before: u64, services: impl Iterator<Item = &'s ServiceName>) {
        let waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        let keys = services.map(|service| Some(service.clone())).chain([None]);
        let concerned = keys.filter_map(|service| waiting.get(&(namespace.clone(), service)));
        for bell in concerned.flat_map(HashMap::values) {
            // The first one counts. Whoever has taken it looks again after that, and sees what happened until then.
            let _ = bell.before.compare_exchange(ASLEEP, before, Ordering::AcqRel, Ordering::Acquire);
            bell.notify.notify_one();
        }
    }

    /// Counts one that waits elsewhere until what this returns is dropped.
    pub(crate) fn count_one(&self) -> Counted<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        Counted(&self.count)
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiter ===

impl Waiter<'_> {
    /// Waits for the first change since [`Hub::listen`] or since the last call. Returns a revision up to which nothing
    /// concerned the waiter since it last looked, if that is known. Cancel safe.
    pub(crate) async fn woken(&self) -> Option<u64> {
        self.bell.notify.notified().await;
        Some(self.bell.before.swap(ASLEEP, Ordering::AcqRel)).filter(|before| *before != ASLEEP)
    }

    /// Whether something woke it that [`Waiter::woken`] did not return yet.
    pub(crate) fn was_woken(&self) -> bool {
        self.bell.before.load(Ordering::Acquire) != ASLEEP
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        for some in self.interests.chunks(TURN) {
            let mut waiting = self.hub.lock();
            for interest in some {
                if let Some(others) = waiting.get_mut(interest) {
                    others.remove(&self.number);
                    if others.is_empty() {
                        waiting.remove(interest);
                    }
                }
            }
        }
        self.hub.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
