//! What the server does for its callers, whichever door they come in by.
//!
//! Rules live here and nowhere else: what is valid, which targets are allowed, defaults, limits, what is counted and
//! accounted for. A door only translates: it reads a request, asks, and writes what it is answered.

mod bookmarks;
mod caller;
mod changes;
mod history;
mod listing;
mod moments;
mod owned;
mod reading;
mod status;
mod subsets;
mod twins;
mod watch;

use std::sync::Arc;

use roundsman_protocol::{
    Bookmark, Cursor, DiscoveryError, Dismissed, Graph, HistoryPage, HistoryQuery, InstanceId, Known, Namespace, Patch,
    Patched, Query, Registered, Registration, ServiceName, ServiceSummary, Status, Trouble, limits, rpc::Wait,
};
use roundsman_registry::Record;
use tokio::time::Instant;

pub(crate) use self::{
    caller::Caller,
    listing::{Found, Listing},
    moments::Moments,
    reading::{Cut, Reading},
    status::Sight,
    watch::{News, Watch},
};
use crate::{context::Context, edges::Tracker, method::Method, principal::Principal};

/// Lists of no more services are put together at once.
const FEW: usize = 64;

/// What one caller can ask, in one namespace: an RPC connection has one for as long as it lasts.
///
/// What waits or takes long is a future that borrows nothing. One that changes something has to be driven to its end,
/// also when nobody waits for the answer any more: what it registers belongs to this caller.
#[derive(Debug)]
pub(crate) struct Api {
    caller: Caller,
    /// Counts what is asked for, when the caller said who it is.
    tracker: Option<Tracker>,
}

// === impl Api ===

impl Api {
    pub(crate) fn new(context: Arc<Context>, namespace: Namespace, principal: Principal) -> Self {
        let service = principal.service().cloned();
        let tracker = service.map(|service| context.edges.track(namespace.clone(), service));
        Self { caller: Caller::new(context, namespace, principal), tracker }
    }

    /// Whoever asks; for what goes on while other things are asked.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Registers an instance, or changes what it said of itself.
    pub(crate) fn register(
        &self,
        registration: Registration,
    ) -> impl Future<Output = Result<Registered, DiscoveryError>> + Send + use<> {
        let caller = self.caller.clone();
        async move { caller.register(registration).await }
    }

    /// Takes an instance out for good.
    pub(crate) fn deregister(&self, id: InstanceId) -> impl Future<Output = Result<(), DiscoveryError>> + Send + use<> {
        let caller = self.caller.clone();
        async move { caller.deregister(id).await }
    }

    /// Stops or resumes handing an instance out.
    pub(crate) fn drain(
        &self,
        id: InstanceId,
        on: bool,
    ) -> impl Future<Output = Result<(), DiscoveryError>> + Send + use<> {
        let caller = self.caller.clone();
        async move { caller.drain(id, on).await }
    }

    /// Takes an instance out as an operator does, who is told who will register it again, and may keep its id out.
    pub(crate) fn dismiss(
        &self,
        id: InstanceId,
        block: Option<Wait>,
    ) -> impl Future<Output = Result<Dismissed, DiscoveryError>> + Send + use<> {
        let caller = self.caller.clone();
        async move { caller.dismiss(id, block).await }
    }

    /// Changes what is named of an instance.
    pub(crate) fn update(
        &self,
        id: InstanceId,
        patch: Patch,
    ) -> impl Future<Output = Result<Patched, DiscoveryError>> + Send + use<> {
        let caller = self.caller.clone();
        async move { caller.update(id, patch).await }
    }

    /// "I am alive", from an instance with a ttl check.
    pub(crate) fn renew(&self, id: &InstanceId) -> Result<(), DiscoveryError> {
        let began = Instant::now();
        self.caller.answered(Method::Renew, began, self.caller.renewed(id))
    }

    /// The caller could not use this instance: it is visited now.
    pub(crate) fn report(&self, id: &InstanceId, trouble: Trouble) -> Result<(), DiscoveryError> {
        let began = Instant::now();
        self.caller.answered(Method::Report, began, self.caller.reported(id, trouble))
    }

    /// One instance that is handed out, in turn and by weight. Takes no lock and allocates nothing.
    pub(crate) fn get(&mut self, service: &ServiceName) -> Result<Arc<Record>, DiscoveryError> {
        let began = Instant::now();
        if let Some(tracker) = &mut self.tracker {
            tracker.looked_up(service);
        }
        self.caller.answered(Method::Get, began, self.caller.looked_up(service))
    }

    /// The instances that a query matches at this moment, or the rest of them from a bookmark on.
    pub(crate) fn list(&mut self, query: Query, after: Option<Bookmark>) -> Result<Listing, DiscoveryError> {
        let timing = self.caller.begin(Method::List);
        let query = match valid(query) {
            Ok(query) => query,
            Err(error) => return timing.done(Err(error)),
        };
        if let Some(tracker) = self.tracker.as_mut().filter(|_| after.is_none()) {
            tracker.listed(&query.services);
        }
        self.caller.list(query, after, timing)
    }

    /// The services of the namespace, when they are few.
    pub(crate) fn few_services(&self) -> Option<Vec<ServiceSummary>> {
        let began = Instant::now();
        let services = self.caller.few_services(FEW)?;
        self.caller.answered(Method::Services, began, Ok(services)).ok()
    }

    /// The services of the namespace, however many. `then` makes the answer of them, where nobody else waits for it.
    pub(crate) fn services<T, F>(&self, then: F) -> impl Future<Output = Result<T, DiscoveryError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(Vec<ServiceSummary>) -> T + Send + 'static,
    {
        self.caller.large(Method::Services, |caller| then(caller.services()))
    }

    /// The server at this moment. `then` makes the answer of it, where nobody else waits for it.
    pub(crate) fn status<T, F>(
        &self,
        sight: Sight,
        then: F,
    ) -> impl Future<Output = Result<T, DiscoveryError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(Status) -> T + Send + 'static,
    {
        self.caller.large(Method::Status, move |caller| then(caller.status(sight)))
    }

    /// Which service of the namespace calls which. `then` makes the answer of it, where nobody else waits for it.
    pub(crate) fn graph<T, F>(&self, then: F) -> impl Future<Output = Result<T, DiscoveryError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(Graph) -> T + Send + 'static,
    {
        self.caller.large(Method::Graph, |caller| then(caller.graph()))
    }

    /// What happened in the namespace, newest first: as much of it as an answer may have, and the store remembers.
    pub(crate) fn history<T: Send + 'static, F: FnOnce(HistoryPage) -> T + Send + 'static>(
        &self,
        query: HistoryQuery,
        then: F,
    ) -> impl Future<Output = Result<T, DiscoveryError>> + Send + use<T, F> {
        let caller = self.caller.clone();
        async move { caller.history(query, then).await }
    }

    /// What changed after a cursor, when there is something; otherwise a watch that waits for it. With `page`, the rest
    /// of what another watch was told.
    pub(crate) fn watch(
        &mut self,
        query: Query,
        after: Option<Cursor>,
        Wait(wait): Wait,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> Result<Watch, DiscoveryError> {
        let Self { caller, tracker } = self;
        let watched = valid(query).and_then(|query| {
            if let Some(page) = page {
                return Ok(Watch::Now(News::Snapshot(caller.rest(query, &page)?)));
            }
            known.as_ref().map_or(Ok(()), Known::validate)?;
            let watching = tracker.as_mut().map(|tracker| tracker.watches(&query.services));
            caller.watch(query, after, known, wait.min(limits::MAX_WATCH_WAIT), watching)
        });
        watched.or_else(|error| caller.timed(Method::Watch, None).done(Err(error)))
    }

    /// Whether the store is loaded and the doors are open.
    pub(crate) fn is_ready(&self) -> bool {
        self.caller.is_ready()
    }

    /// What all parts count, as Prometheus reads it.
    ///
    /// # Errors
    /// Never, as far as is known: writing into memory does not fail.
    pub(crate) fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.caller.metrics()
    }

    /// The caller is gone, and may be dead: has everything visited at once that it registered.
    pub(crate) fn close(&self) {
        self.caller.close();
    }
}

fn valid(query: Query) -> Result<Query, DiscoveryError> {
    query.validate()?;
    Ok(query.canonical())
}

#[cfg(test)]
pub(crate) mod tests;
