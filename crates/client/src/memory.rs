//! A registry within this process, which visits nobody: what [`Discovery::fixed`](crate::Discovery::fixed) and the server for
//! tests answer from.

mod calls;
mod records;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use roundsman_protocol::{
    Clock, Cursor, DiscoveryError, DiscoveryRequest, DiscoveryResponse, Invalid, Known, Namespace, Page, Query,
    Registered, Registration, Update, rpc::Wait,
};
use tarpc::ServerError;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

pub(crate) use self::calls::Calls;
use self::records::{Look, Records};

/// Longest time that a question about changes stays open, whatever it asks for.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// The registry of one namespace.
#[derive(Debug)]
pub(crate) struct Memory {
    records: Mutex<Records>,
    /// The revision, for those who wait for the next.
    revision: watch::Sender<u64>,
    clock: Clock,
}

// === impl Memory ===

impl Memory {
    /// One that has never known anybody.
    pub(crate) fn new(namespace: Namespace) -> Self {
        // Below 2^53, as all epochs are.
        let records = Records::new(namespace, fastrand::u64(1..1 << 53));
        Self { records: Mutex::new(records), revision: watch::Sender::new(0), clock: Clock::system() }
    }

    /// Registers an instance, which is passing from now on.
    ///
    /// # Errors
    /// [`DiscoveryError::Invalid`].
    pub(crate) fn register(&self, registration: Registration) -> Result<Registered, DiscoveryError> {
        let now = self.clock.now();
        self.change(|records| records.register(registration, now))
    }

    /// What has been registered, and what was told about it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let (done, revision) = {
            let mut records = self.lock();
            (change(&mut records), records.revision())
        };
        self.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        done
    }

    /// Answers a call.
    ///
    /// # Errors
    /// For what only a real server can tell.
    pub(crate) async fn answer(&self, request: DiscoveryRequest) -> Result<DiscoveryResponse, ServerError> {
        use DiscoveryRequest as Request;
        use DiscoveryResponse as Response;
        let now = self.clock.now();
        Ok(match request {
            Request::Register { registration } => Response::Register(self.register(registration)),
            Request::Deregister { id } => {
                Response::Deregister(self.change(|records| records.remove(&id, "deregistered")))
            }
            Request::Renew { id } => Response::Renew(self.lock().live(&id).map(|_| ())),
            Request::Drain { id, on } => Response::Drain(self.change(|records| records.drain(&id, on, now))),
            Request::Get { service } => Response::Get(self.lock().next(&service)),
            Request::List { query, after: None } => Response::List(self.list(&query)),
            Request::Services {} => Response::Services(Ok(self.lock().services())),
            Request::Watch { query, after, wait, known, page: None } => {
                Response::Watch(self.watch(query, after, wait, known).await)
            }
            Request::Report { id, trouble } => Response::Report(self.lock().report(&id, trouble)),
            // Bookmarks, which are never given out here, and questions about the server itself.
            _ => {
                let detail = "this registry in memory knows instances only: ask a real server".to_owned();
                return Err(ServerError::new(io::ErrorKind::InvalidInput, detail));
            }
        })
    }

    fn list(&self, query: &Query) -> Result<Page, DiscoveryError> {
        query.validate().map_err(DiscoveryError::Invalid)?;
        let records = self.lock();
        if let [service] = &*query.services
            && !records.knows(service)
        {
            return Err(DiscoveryError::NoSuchService { service: service.clone() });
        }
        Ok(Page { cursor: records.cursor(), instances: records.matching(query), next: None })
    }

    async fn watch(
        &self,
        query: Query,
        after: Option<Cursor>,
        Wait(wait): Wait,
        known: Option<Known>,
    ) -> Result<Update, DiscoveryError> {
        query.validate().map_err(DiscoveryError::Invalid)?;
        let (mut revision, deadline) = (self.revision.subscribe(), Instant::now() + wait.min(MOST_WAIT));
        let mut after = after;
        loop {
            revision.mark_unchanged();
            match self.lock().look(&query, after, known.as_ref()) {
                Look::News(update) => return Ok(update),
                // What changed since then is somebody else's.
                Look::Nothing(cursor) => after = Some(cursor),
            }
            let changed = timeout_at(deadline, revision.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                let gone = || Invalid::new("after", "the registry is gone");
                return after.map(Update::unchanged).ok_or_else(|| DiscoveryError::Invalid(gone()));
            }
        }
    }

    /// Short, and never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Records> {
        // Nothing leaves it half changed.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is registered by whom is told apart by id alone, as everywhere.
pub(crate) type Shared = Arc<Memory>;
