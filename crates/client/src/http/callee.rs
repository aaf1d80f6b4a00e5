//! What is kept between calls: one HTTP client, and for each service that was called its list and its budget.
//!
//! Lives in the client itself, and so must hold no [`Discovery`](crate::Discovery): it would never end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::redirect;
use roundsman_protocol::{DiscoveryError, Host, Instance, Query, ServiceName};
use rustls::crypto::{CryptoProvider, ring};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tower::retry::budget::{Budget as _, TpsBudget};

use super::{CONNECT_TIMEOUT, Error, leaving::Leaving};
use crate::{
    balance::{Balancer, Nearness, Peers, Policy},
    cache::Feed,
    discovery::{Discovery, Inner},
    link::Link,
    resolver::resolve,
    share::Share,
};

/// Calls of the last so many seconds pay for repetitions.
const BUDGET_WINDOW: Duration = Duration::from_secs(5);
/// So many repetitions a second are free, for services that are called seldom.
const BUDGET_RESERVE: u32 = 1;
/// What part of the calls may be repeated beyond those.
const BUDGET_SHARE: f32 = 0.1;

/// What all calls of a client share.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Made by the first call.
    client: Mutex<Option<reqwest::Client>>,
    callees: Mutex<HashMap<Key, Arc<Callee>>>,
}

/// A service, or a part of it.
type Key = (ServiceName, Option<Share>);

/// A service that was called.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) service: ServiceName,
    share: Option<Share>,
    feed: Arc<Feed>,
    leaving: Leaving,
    budget: TpsBudget,
    /// One for each way to choose; there is hardly ever more than one.
    balancers: Mutex<Vec<(Choice, Arc<Balancer>)>>,
    /// Whether there is such a service: an instance of it was seen, or a server said so.
    exists: AtomicBool,
}

/// How instances are chosen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) policy: Policy,
    pub(crate) zone: Option<Box<str>>,
    pub(crate) host: Option<Host>,
    /// How many of all there are.
    pub(crate) share: Option<Share>,
}

// === impl Calls ===

impl Calls {
    /// The HTTP client.
    pub(crate) fn client(&self, inner: &Inner) -> Result<reqwest::Client, Error> {
        let mut client = lock(&self.client);
        // Under the lock: what is made now is found by `clear`, which comes after the stop.
        if inner.stop.is_cancelled() {
            return Err(crate::Error::Closed.into());
        }
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let new = new_client()?;
        Ok(client.insert(new).clone())
    }

    /// The service of this name, followed from now on. Must be called within a Tokio runtime.
    pub(crate) fn callee(
        &self,
        inner: &Inner,
        service: &ServiceName,
        share: Option<&Share>,
    ) -> Result<Arc<Callee>, Error> {
        let mut callees = lock(&self.callees);
        if inner.stop.is_cancelled() {
            return Err(crate::Error::Closed.into());
        }
        let key = (service.clone(), share.cloned());
        if let Some(callee) = callees.get(&key) {
            return Ok(Arc::clone(callee));
        }
        let subset = share.map(|share| share.subset(inner)).transpose()?;
        let feed = inner.cache.subscribe(Query { subset, ..Query::service(service.clone()) });
        inner.cache.start(&feed, &inner.link, &inner.stop, &inner.tasks);
        let callee = Arc::new(Callee::new(service.clone(), share.cloned(), feed, inner.link.clone()));
        callees.insert(key, Arc::clone(&callee));
        Ok(callee)
    }

    /// Lets go of everything: connections that are idle close, lists are no longer followed.
    pub(crate) fn clear(&self) {
        lock(&self.client).take();
        lock(&self.callees).clear();
    }

    /// A name that is no service is not followed for ever.
    fn forget(&self, callee: &Arc<Callee>) {
        let mut callees = lock(&self.callees);
        let key = (callee.service.clone(), callee.share.clone());
        if callees.get(&key).is_some_and(|kept| Arc::ptr_eq(kept, callee)) {
            callees.remove(&key);
        }
    }
}

/// Calls go to the address that discovery named: no proxy, and nobody else's word on where to go.
fn new_client() -> Result<reqwest::Client, Error> {
    // reqwest asks for a TLS provider even where it only speaks plain HTTP. An error means that another thread was first.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        // Only plain HTTP is spoken: the machine's root certificates, which an empty image lacks, are not needed.
        .tls_certs_only([])
        .build()
        .map_err(|error| Error::invalid("the HTTP client cannot be set up", &error))
}

// === impl Callee ===

impl Callee {
    /// `link` is the client's.
    pub(crate) fn new(
        service: ServiceName,
        share: Option<Share>,
        feed: Arc<Feed>,
        link: watch::Receiver<Link>,
    ) -> Self {
        let leaving = Leaving::new(feed.query.clone(), link);
        let budget = TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE, BUDGET_SHARE);
        let (balancers, exists) = (Mutex::default(), AtomicBool::new(false));
        Self { service, share, feed, leaving, budget, balancers, exists }
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

    /// Who chooses among the instances.
    pub(crate) fn balancer(&self, choice: &Choice, peers: &Arc<Peers>) -> Arc<Balancer> {
        let mut balancers = lock(&self.balancers);
        if let Some((_, balancer)) = balancers.iter().find(|(kept, _)| kept == choice) {
            return Arc::clone(balancer);
        }
        let nearness = Nearness { zone: choice.zone.clone(), host: choice.host.clone(), part: None };
        let balancer = Arc::new(Balancer::new(choice.policy, nearness, Arc::clone(peers), &self.feed.current()));
        balancers.push((choice.clone(), Arc::clone(&balancer)));
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

    /// Whether a try may be repeated.
    pub(crate) fn withdraw(&self) -> bool {
        self.budget.withdraw()
    }
}

// === impl Choice ===

impl Default for Choice {
    fn default() -> Self {
        Self { policy: Policy::PeakEwma, zone: None, host: None, share: None }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
