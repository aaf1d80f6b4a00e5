//! Where registrations last: in memory, in SQLite or in Redis.
//!
//! A store keeps what the one writer commits and gives it back when a server starts. It answers no lookups,
//! takes no decisions and knows nothing of health beyond the field that says it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use roundsman_protocol::Namespace;
use roundsman_registry::{Change, Record};

mod memory;
mod redis;
mod sqlite;
mod stored;
mod url;

pub use url::StoreUrl;

/// Where registrations last.
///
/// There is one writer per server; [`Store::commit`] is never called twice at a time. All methods are cancel
/// safe in this sense: a commit that was dropped may or may not have happened, and writing it again does no harm.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What this store is, for status and logs: its kind, and where it is, without credentials.
    fn describe(&self) -> Description;

    /// Everything, with the position and the generation it was read at. Opens what needs to be opened.
    ///
    /// A store that was loaded before and has lost its contents since answers [`StoreError::GenerationLost`] instead
    /// of an empty snapshot, so that nobody mistakes the loss for the truth.
    async fn load(&self) -> Result<Snapshot, StoreError>;

    /// Moves what the last [`Store::load`] could not read to where it harms nobody and nobody overwrites it. What
    /// cannot be kept safely stays where it is; [`Store::load`] leaves it out each time.
    async fn set_aside(&self) -> Result<Aside, StoreError>;

    /// Makes a batch durable: all of it or nothing, per namespace for stores that spread namespaces over machines.
    /// The position is where the batch stands; [`Store::changes`] goes on from where it was, not from here.
    async fn commit(&self, batch: &[Change]) -> Result<Position, StoreError>;

    /// Like [`Store::commit`], for what must not wait until a full store has room again: removals and drains.
    /// A store that keeps a reserve for this case uses it now.
    async fn commit_from_reserve(&self, batch: &[Change]) -> Result<Position, StoreError> {
        self.commit(batch).await
    }

    /// Those of these live records that should be in the store and are not, although nobody removed them
    /// through a server: somebody deleted them by hand. Not to be called while a commit is under way.
    async fn missing(&self, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError>;

    /// Asks whether the store is there and still carries the generation that [`Store::load`] or [`Store::refill`] saw.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Gives a store that came back empty everything it has lost, and a generation.
    /// After it, what others wrote meanwhile is still there, and [`Store::changes`] after the position tells it.
    /// Not atomic: when it fails halfway, do it again.
    async fn refill(&self, records: &[Arc<Record>]) -> Result<Position, StoreError>;

    /// What other servers committed after `after`. Never yields for embedded stores. Ends when it can no longer
    /// tell everything (the change log was trimmed, the store was emptied): then load again.
    ///
    /// An error is told once per outage; the stream heals by itself, and goes on without a gap or ends.
    fn changes(&self, after: Position) -> BoxStream<'static, Result<Foreign, StoreError>>;
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `memory`, `sqlite` or `redis`.
    pub kind: &'static str,
    /// Where it is, without credentials.
    pub location: String,
}

/// A point in a store's history, opaque to everyone but the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(pub String);

/// Everything a store holds.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The records, those on probation included. Their incarnations are 0; the reader gives them out.
    pub records: Vec<Record>,
    /// What is there and cannot be read. See [`Store::set_aside`].
    pub damaged: Vec<Damage>,
    /// Where [`Store::changes`] goes on.
    pub position: Position,
}

/// A record in a store that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which one: `row 7`, or a key.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What became of damaged records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Where they lie now: the path of a file, or a pattern of keys.
    pub place: String,
    /// How many were moved there.
    pub moved: usize,
    /// Why the rest of them, if any, stays where it was.
    pub left: Option<String>,
}

/// A change that another server committed.
#[derive(Debug)]
pub struct Foreign {
    /// The change. A removal carries the last record known to its committer.
    pub change: Change,
    /// Where it stands.
    pub position: Position,
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or cannot write now: disk full, connection lost. Try again later. Embedded stores wrote
    /// nothing; whether one behind a network did is unknown when the answer was lost.
    #[error("{reason}")]
    Unavailable {
        /// In short, for clients.
        reason: String,
        /// The cause, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// There is no room left. Nothing was written; [`Store::commit_from_reserve`] may still work.
    #[error("{reason}")]
    Full {
        /// In short, for clients.
        reason: String,
        /// The cause, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It answers, but no longer has the generation that it had. Refill it.
    #[error("the store lost its contents")]
    GenerationLost,
    /// It is not ours, damaged, or from a newer version. No retry helps; an operator must look.
    #[error("{0}")]
    Unusable(String),
}

/// When a client may try again after [`StoreError::Unavailable`] or [`StoreError::Full`].
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Position ===

impl Position {
    /// Whether this point of a namespace's history lies before `other`. `None` when the two cannot be compared: the
    /// store has no history, or lost its contents in between.
    #[must_use]
    pub fn is_before(&self, other: &Self, namespace: &Namespace) -> Option<bool> {
        redis::is_before(self, other, namespace)
    }
}

// === impl StoreError ===

impl StoreError {
    fn unavailable(reason: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable { reason: reason.to_owned(), source: Some(source.into()) }
    }
}
