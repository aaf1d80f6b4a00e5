//! What is kept between calls: one HTTP client, and for each service that was called its list and its budget.
//!
//! Lives in the client itself, and so must hold no [`Discovery`](crate::Discovery): it would never end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use roundsman_protocol::{DiscoveryError, Instance, Query, ServiceName};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Error,
    budget::{Budget, Payment},
    choice::Choice,
    client::Client,
    leaving::Leaving,
};
use crate::{
    balance::{Balancer, Nearness, Part, Peers},
    cache::Feed,
    discovery::{Discovery, Inner},
    link::Link,
    resolver::resolve,
    share::Share,
};

/// So many selections are followed at most, unless all of them are being called.
const MOST_CALLEES: usize = 1_024;
/// So many ways to choose among the same instances are kept.
const MOST_BALANCERS: usize = 64;

/// What all calls of a client share.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Made by the first call.
    client: Mutex<Option<Client>>,
    #[cfg(feature = "grpc")]
    grpc: Mutex<Option<Client>>,
    callees: Mutex<HashMap<Key, Arc<Callee>>>,
}

/// A service, or some of its instances.
type Key = (ServiceName, Arc<Query>, Option<Share>);

/// Who chooses in this way, for this part.
type Chooser = ((Choice, Option<Part>), Arc<Balancer>);

/// A service that was called.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) service: ServiceName,
    feed: Arc<Feed>,
    leaving: Leaving,
    /// That of all calls to the service, whichever of its instances they are for.
    budget: Arc<Budget>,
    /// One for each way to choose; there is hardly ever more than one.
    balancers: Mutex<Vec<Chooser>>,
    turn: AtomicU64,
    /// Whether there is such a service: an instance of it was seen, or a server said so.
    exists: AtomicBool,
}

// === impl Calls ===

impl Calls {
    /// The HTTP client.
    pub(crate) fn client(&self, inner: &Inner) -> Result<Client, Error> {
        Self::made(&self.client, inner, Client::plain)
    }

    /// The one for gRPC.
    #[cfg(feature = "grpc")]
    pub(crate) fn grpc(&self, inner: &Inner) -> Result<Client, Error> {
        Self::made(&self.grpc, inner, Client::multiplexed)
    }

    fn made(client: &Mutex<Option<Client>>, inner: &Inner, new: fn() -> Client) -> Result<Client, Error> {
        let mut client = lock(client);
        // Under the lock: what is made now is found by `clear`, which comes after the stop.
        if inner.stop.is_cancelled() {
            return Err(crate::Error::Closed.into());
        }
        Ok(client.get_or_insert_with(new).clone())
    }

    /// Uses this HTTP client.
    #[cfg(feature = "reqwest")]
    pub(crate) fn set_client(&self, client: reqwest::Client) {
        *lock(&self.client) = Some(Client::Foreign(client));
    }

    /// The instances of this service that are chosen from, followed from now on. Must be called within a Tokio runtime.
    pub(crate) fn callee(&self, inner: &Inner, service: &ServiceName, choice: &Choice) -> Result<Arc<Callee>, Error> {
        let mut callees = lock(&self.callees);
        if inner.stop.is_cancelled() {
            return Err(crate::Error::Closed.into());
        }
        let key = (service.clone(), Arc::clone(&choice.select), choice.share.clone());
        if let Some(callee) = callees.get(&key) {
            return Ok(Arc::clone(callee));
        }
        if callees.len() >= MOST_CALLEES {
            // Somebody makes up selections: those that nobody uses at this moment are followed no longer.
            callees.retain(|_, callee| Arc::strong_count(callee) > 1);
        }
        let share = choice.share.as_ref().map(|share| share.subset(inner)).transpose()?;
        let select = Query { services: vec![service.clone()], ..Query::clone(&choice.select) };
        let query = Query { subset: share.or(select.subset.clone()), ..select };
        let feed = inner.cache.subscribe(query, false);
        inner.cache.start(&feed, &inner.link, &inner.stop, &inner.tasks);
        let of_service = callees.values().find(|callee| callee.service == *service);
        let budget = of_service.map_or_else(|| Arc::new(Budget::new()), |callee| Arc::clone(&callee.budget));
        let callee = Arc::new(Callee::new(service.clone(), feed, budget, inner.link.clone()));
        callees.insert(key, Arc::clone(&callee));
        Ok(callee)
    }

    /// Lets go of everything: connections that are idle close, lists are no longer followed.
    pub(crate) fn clear(&self) {
        lock(&self.client).take();
        #[cfg(feature = "grpc")]
        lock(&self.grpc).take();
        lock(&self.callees).clear();
    }

    /// A name that is no service is not followed for ever.
    fn forget(&self, callee: &Arc<Callee>) {
        lock(&self.callees).retain(|_, kept| !Arc::ptr_eq(kept, callee));
    }
}

// === impl Callee ===

impl Callee {
    /// `link` is the client's.
    pub(crate) fn new(service: ServiceName, feed: Arc<Feed>, budget: Arc<Budget>, link: watch::Receiver<Link>) -> Self {
        let leaving = Leaving::new(feed.query.clone(), link);
        let (balancers, exists) = (Mutex::default(), AtomicBool::new(false));
        // Not everybody begins with the same part.
        let turn = AtomicU64::new(fastrand::u64(..));
        Self { service, feed, leaving, budget, balancers, turn, exists }
    }

    /// Waits for the list, no longer than for any other question to a server, and makes sure that there is such a service.
    pub(crate) async fn ready(self: &Arc<Self>, discovery: &Discovery, deadline: Instant) -> Result<(), Error> {
        let began = Instant::now();
        let deadline = deadline.min(began + discovery.inner.timeout);
        if !self.feed.current().is_known() {
            let mut changes = self.feed.changes();
            let Ok(known) = timeout_at(deadline, changes.wait_for(|snapshot| snapshot.is_known())).await else {
                return Err(resolve::late(discovery, began.elapsed()).into());
            };
            known.map_err(|_| crate::Error::Closed)?;
        }
        if self.exists.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.feed.current().instances().is_empty() {
            let known = resolve::known(discovery, &self.service, deadline).await;
            if let Err(crate::Error::Discovery(DiscoveryError::NoSuchService { .. })) = known {
                discovery.inner.calls.forget(self);
            }
            known?;
        }
        self.exists.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Who chooses among the instances for a call, with a key or without.
    pub(crate) fn balancer(&self, choice: &Choice, key: Option<&[u8]>, peers: &Arc<Peers>) -> Arc<Balancer> {
        let part = choice.part(key, self.turn.fetch_add(1, Ordering::Relaxed));
        let mut balancers = lock(&self.balancers);
        let known = balancers.iter().find(|((kept, of), _)| kept == choice && *of == part);
        if let Some((_, balancer)) = known {
            return Arc::clone(balancer);
        }
        let nearness = Nearness { zone: choice.zone.clone(), host: choice.host.clone(), part: part.clone() };
        let balancer = Arc::new(Balancer::new(choice.policy, nearness, Arc::clone(peers), &self.feed.current()));
        if balancers.len() >= MOST_BALANCERS {
            balancers.clear();
        }
        balancers.push(((choice.clone(), part), Arc::clone(&balancer)));
        balancer
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Who is about to leave, and serves still. Asks a server, at most a few times a second.
    pub(crate) async fn leaving(&self) -> Arc<[Arc<Instance>]> {
        self.leaving.ask().await
    }

    /// A call begins, which pays for repetitions, its own or others'.
    pub(crate) fn deposit(&self) {
        self.budget.deposit();
    }

    /// Pays for another try, if the budget allows one.
    pub(crate) fn pay(&self) -> Option<Payment<'_>> {
        self.budget.pay()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
