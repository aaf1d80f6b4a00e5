//! The one task that changes anything.
//!
//! What clients ask for is committed first and visible second; what the rounds observed is visible first and
//! committed with the next batch. While a batch is on its way to the store, requests wait and become the next batch.

mod audit;
mod batch;
mod committing;
mod journal;
mod meters;
mod operation;
mod shared;
mod task;
mod troubled;
mod unwritten;

use std::sync::Arc;

use roundsman_protocol::{DiscoveryError, Dismissed, InstanceId, Patch, Patched, Registered, Registration, Timestamp};
use roundsman_registry::Key;
use tokio::sync::{mpsc, oneshot};

pub(crate) use audit::Audit;
pub(crate) use journal::Journal;
pub(crate) use meters::Meters;
pub(crate) use task::{Inputs, Task};
pub(crate) use troubled::Troubled;
pub(crate) use unwritten::Unwritten;

use crate::principal::Principal;

/// Where changes are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
}

/// A change that somebody asks for, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    Register {
        namespace: roundsman_protocol::Namespace,
        registration: Arc<Registration>,
        /// Who is registered at the same place under another name for it, and leaves.
        twins: Vec<InstanceId>,
        by: Arc<Principal>,
        reply: Reply<Registered>,
    },
    Deregister {
        key: Key,
        by: Arc<Principal>,
        reply: Reply<()>,
    },
    /// An operator takes an instance out, and may keep its id out until a moment.
    Dismiss {
        key: Key,
        block: Option<Timestamp>,
        /// What is known of it beforehand, and answered.
        known: Dismissed,
        by: Arc<Principal>,
        reply: Reply<Dismissed>,
    },
    Drain {
        key: Key,
        on: bool,
        /// Whether it is not the owner who asks.
        operator: bool,
        by: Arc<Principal>,
        reply: Reply<()>,
    },
    Update {
        key: Key,
        patch: Arc<Patch>,
        by: Arc<Principal>,
        reply: Reply<Patched>,
    },
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, DiscoveryError>>;

// === impl Writer ===

impl Writer {
    pub(crate) fn new(queue: usize) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(queue);
        (Self { requests }, receiver)
    }

    pub(crate) async fn register(
        &self,
        namespace: roundsman_protocol::Namespace,
        registration: Registration,
        twins: Vec<InstanceId>,
        by: Arc<Principal>,
    ) -> Result<Registered, DiscoveryError> {
        let registration = Arc::new(registration);
        self.ask(|reply| Request::Register { namespace, registration, twins, by, reply }).await
    }

    pub(crate) async fn deregister(&self, key: Key, by: Arc<Principal>) -> Result<(), DiscoveryError> {
        self.ask(|reply| Request::Deregister { key, by, reply }).await
    }

    pub(crate) async fn dismiss(
        &self,
        key: Key,
        block: Option<Timestamp>,
        known: Dismissed,
        by: Arc<Principal>,
    ) -> Result<Dismissed, DiscoveryError> {
        self.ask(|reply| Request::Dismiss { key, block, known, by, reply }).await
    }

    pub(crate) async fn drain(
        &self,
        key: Key,
        on: bool,
        operator: bool,
        by: Arc<Principal>,
    ) -> Result<(), DiscoveryError> {
        self.ask(|reply| Request::Drain { key, on, operator, by, reply }).await
    }

    pub(crate) async fn update(&self, key: Key, patch: Patch, by: Arc<Principal>) -> Result<Patched, DiscoveryError> {
        let patch = Arc::new(patch);
        self.ask(|reply| Request::Update { key, patch, by, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, DiscoveryError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let value = u64::try_from(self.requests.max_capacity()).unwrap_or(u64::MAX);
                DiscoveryError::LimitReached { limit: "--max-queue".to_owned(), value }
            }
            mpsc::error::TrySendError::Closed(_) => DiscoveryError::ShuttingDown,
        })?;
        answer.await.unwrap_or(Err(DiscoveryError::ShuttingDown))
    }
}

// === impl Request ===

impl Request {
    /// Whether it makes a store grow: then it waits for room on a full disk, and everything else does not.
    pub(crate) fn grows(&self) -> bool {
        matches!(self, Self::Register { .. } | Self::Update { .. })
    }

    /// Which namespace it is about.
    pub(crate) fn namespace(&self) -> &roundsman_protocol::Namespace {
        match self {
            Self::Register { namespace, .. } => namespace,
            Self::Deregister { key, .. }
            | Self::Dismiss { key, .. }
            | Self::Drain { key, .. }
            | Self::Update { key, .. } => &key.namespace,
        }
    }

    /// Which record it is about, and who asks; none for a registration, which may have no id yet.
    pub(crate) fn about(&self) -> Option<(&Key, &Arc<Principal>)> {
        match self {
            Self::Register { .. } => None,
            Self::Deregister { key, by, .. }
            | Self::Dismiss { key, by, .. }
            | Self::Drain { key, by, .. }
            | Self::Update { key, by, .. } => Some((key, by)),
        }
    }

    /// Answers with a refusal.
    pub(crate) fn refuse(self, error: DiscoveryError) {
        // Whoever asked may have hung up meanwhile; then nobody is left to be told.
        match self {
            Self::Register { reply, .. } => drop(reply.send(Err(error))),
            Self::Deregister { reply, .. } | Self::Drain { reply, .. } => drop(reply.send(Err(error))),
            Self::Dismiss { reply, .. } => drop(reply.send(Err(error))),
            Self::Update { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The key of an instance in a namespace.
pub(crate) fn key(namespace: &roundsman_protocol::Namespace, id: InstanceId) -> Key {
    Key { namespace: namespace.clone(), id }
}
