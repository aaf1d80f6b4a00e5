//! Who asks, and what is counted and accounted for on the way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use roundsman_health::Nudge;
use roundsman_protocol::{
    CheckKind, DiscoveryError, InstanceId, Namespace, Query, ServiceName, ServiceSummary, Trouble,
};
use roundsman_registry::{Key, Record, Snapshot};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::owned::Owned;
use crate::{
    context::Context,
    keepers::Owner,
    memory::{Reservation, kept},
    method::Method,
    principal::{Door, Principal},
    writer::key,
};

/// Answers of no more bytes are not accounted for.
pub(super) const SHORT: usize = 16 * 1_024;
/// How many long answers of a caller are in the making at a time: the others wait for their turn here, where they are
/// in nobody's way.
const AT_A_TIME: usize = 4;

/// Who asks, about which namespace. Cheap to clone: what waits or takes long takes it along.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(super) context: Arc<Context>,
    pub(super) namespace: Namespace,
    pub(super) principal: Arc<Principal>,
    session: Arc<Session>,
}

/// What is kept of a caller between two of its calls.
#[derive(Debug)]
struct Session {
    /// Where it is known once it owns something.
    context: Arc<Context>,
    principal: Arc<Principal>,
    is_known: AtomicBool,
    /// One permit for each long answer in the making.
    turns: Semaphore,
    owned: Mutex<Owned>,
}

/// A call that is to be counted, with the time that it took, once it is answered.
#[derive(Debug)]
pub(crate) struct Timing {
    context: Arc<Context>,
    door: Door,
    method: Method,
    /// None for a call that waits for something to happen: how long that takes says nothing about the server.
    began: Option<Instant>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(context: Arc<Context>, namespace: Namespace, principal: Principal) -> Self {
        let principal = Arc::new(principal);
        let session = Session {
            context: Arc::clone(&context),
            principal: Arc::clone(&principal),
            is_known: AtomicBool::new(false),
            turns: Semaphore::new(AT_A_TIME),
            owned: Mutex::default(),
        };
        Self { context, namespace, principal, session: Arc::new(session) }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Counts a refusal by the door, for a reason of its own.
    pub(crate) fn refused_as(&self, reason: &'static str) {
        self.context.meters.refused_as(reason);
    }

    /// A turn for a long answer. What is offloaded without one would let a caller take all threads.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.session.turns.acquire().await.ok()
    }

    /// Does work in a turn of the caller's, where nobody else waits for it.
    ///
    /// # Errors
    /// When too much waits already.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiscoveryError> {
        let _turn = self.turn().await;
        self.context.offload.run(work).await
    }

    /// Bytes of an answer; when they are many, accounted for until the caller has read them.
    ///
    /// # Errors
    /// When callers keep too much in memory already.
    pub(crate) fn account(&self, mut bytes: Vec<u8>) -> Result<Bytes, DiscoveryError> {
        if bytes.len() <= SHORT {
            return Ok(bytes.into());
        }
        bytes.shrink_to_fit();
        let reservation = self.reserve(bytes.len())?;
        Ok(kept(bytes, &Arc::new(reservation)))
    }

    pub(super) fn reserve(&self, bytes: usize) -> Result<Reservation, DiscoveryError> {
        self.context.budget.reserve(&self.namespace, bytes)
    }

    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.session.owned()
    }

    /// From now on others are told what this caller keeps registered.
    pub(super) fn be_known_as_owner(&self) {
        if !self.session.is_known.swap(true, Ordering::Relaxed) {
            let session: Weak<Session> = Arc::downgrade(&self.session);
            self.context.keepers.enter(&self.principal, &self.namespace, session);
        }
    }

    /// A call that began now.
    pub(super) fn begin(&self, method: Method) -> Timing {
        self.timed(method, Some(Instant::now()))
    }

    pub(super) fn timed(&self, method: Method, began: Option<Instant>) -> Timing {
        Timing { context: Arc::clone(&self.context), door: self.principal.door(), method, began }
    }

    /// Counts a call that was answered at once.
    pub(super) fn answered<T>(
        &self,
        method: Method,
        began: Instant,
        answer: Result<T, DiscoveryError>,
    ) -> Result<T, DiscoveryError> {
        count(&self.context, self.principal.door(), method, began.elapsed(), answer)
    }

    /// A call that only reads, but much.
    pub(super) fn large<T: Send + 'static, F: FnOnce(&Self) -> T + Send + 'static>(
        &self,
        method: Method,
        make: F,
    ) -> impl Future<Output = Result<T, DiscoveryError>> + Send + use<T, F> {
        let (caller, timing) = (self.clone(), self.begin(method));
        async move {
            let maker = caller.clone();
            timing.done(caller.aside(move || make(&maker)).await)
        }
    }

    pub(super) fn key(&self, id: InstanceId) -> Key {
        key(&self.namespace, id)
    }

    pub(super) fn looked_up(&self, service: &ServiceName) -> Result<Arc<Record>, DiscoveryError> {
        self.context.registry.get(&self.namespace, service)
    }

    pub(super) fn snapshot(&self, query: &Query) -> Result<Snapshot, DiscoveryError> {
        // Asked for one service that nobody ever registered, "none" would hide a mistyped name.
        if let [service] = query.services.as_slice()
            && !self.context.registry.has_service(&self.namespace, service)
        {
            return Err(DiscoveryError::NoSuchService { service: service.clone() });
        }
        Ok(self.context.registry.snapshot(&self.namespace, query))
    }

    pub(super) fn services(&self) -> Vec<ServiceSummary> {
        self.context.registry.services(&self.namespace)
    }

    pub(super) fn few_services(&self, few: usize) -> Option<Vec<ServiceSummary>> {
        (self.context.registry.services_of(&self.namespace) <= few).then(|| self.services())
    }

    pub(super) fn renewed(&self, id: &InstanceId) -> Result<(), DiscoveryError> {
        let key = self.key(id.clone());
        // Whoever is remembered for a time of its own is back by calling in.
        let counts = |record: &Arc<Record>| {
            let called = record.instance.check.kind == CheckKind::Ttl;
            !record.is_evicted() || (called && record.forget_after().is_some() && !record.is_blocked())
        };
        let live = self.context.registry.find(&key).filter(counts);
        // Only those that have to call in are known to the rounds by their calls.
        let called =
            live.is_some_and(|record| record.instance.check.kind != CheckKind::Ttl || self.context.rounds.renew(&key));
        if called { Ok(()) } else { Err(DiscoveryError::NotRegistered { id: id.clone() }) }
    }

    pub(super) fn reported(&self, id: &InstanceId, trouble: Trouble) -> Result<(), DiscoveryError> {
        let key = self.key(id.clone());
        // Whoever is remembered for long is visited seldom, and may be well by now.
        let is_visited = |record: &Record| !record.is_evicted() || record.forget_after().is_some();
        if !self.context.registry.find(&key).is_some_and(|record| is_visited(&record)) {
            return Err(DiscoveryError::NotRegistered { id: id.clone() });
        }
        self.context.rounds.nudge(&key, Nudge::Reported(trouble));
        Ok(())
    }
}

// === impl Timing ===

impl Timing {
    /// Counts the call, and its refusal if it was refused.
    pub(crate) fn done<T>(self, answer: Result<T, DiscoveryError>) -> Result<T, DiscoveryError> {
        let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        count(&self.context, self.door, self.method, took, answer)
    }
}

fn count<T>(
    context: &Context,
    door: Door,
    method: Method,
    took: Duration,
    answer: Result<T, DiscoveryError>,
) -> Result<T, DiscoveryError> {
    if let Err(error) = &answer {
        context.meters.refused(error);
    }
    context.meters.of(door).called(method, took);
    answer
}

// === impl Session ===

impl Session {
    fn owned(&self) -> MutexGuard<'_, Owned> {
        // Nothing can panic between two related changes of it.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner for Session {
    fn owns(&self, key: &Key) -> bool {
        self.owned().has(&key.id)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.is_known.get_mut() {
            self.context.keepers.leave(self.principal.session());
        }
    }
}
