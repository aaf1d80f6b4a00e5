//! Where registrations last: in memory, in SQLite or in Redis.
//!
//! A store keeps what the one writer commits and gives it back when a server starts. It answers no lookups,
//! takes no decisions and knows nothing of health beyond the field that says it.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use roundsman_protocol::{Event, HistoryPage, HistoryQuery, Namespace};
use roundsman_registry::{Change, Key, Record, Tombstone};
use tokio::sync::mpsc;

mod events;
mod memory;
mod redis;
mod sqlite;
mod stored;
mod url;

pub use events::Keep;
pub use url::StoreUrl;

/// Where registrations last.
///
/// There is one writer per server; [`Durable::commit`] is never called twice at a time. All methods are cancel
/// safe in this sense: a commit that was dropped may or may not have happened, and writing it again does no harm,
/// but for the history, in which its events may then stand twice.
#[async_trait]
pub trait Durable: Send + Sync + fmt::Debug {
    /// What this store is, for status and logs: its kind, and where it is, without credentials.
    fn describe(&self) -> Description;

    /// Everything, with the position and the generation it was read at. Opens what needs to be opened.
    ///
    /// A store that was loaded before and has lost its contents since answers [`StoreError::GenerationLost`] instead
    /// of an empty snapshot, so that nobody mistakes the loss for the truth.
    async fn load(&self) -> Result<Snapshot, StoreError>;

    /// Like [`Durable::load`], but hands records over while it goes on reading, so that whoever takes them in need not
    /// wait for the last one, and none of both holds all of them twice. The snapshot has those that were not handed
    /// over. After an error, what was handed over may be incomplete: load again, everything comes anew.
    async fn load_in_parts(&self, parts: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, StoreError> {
        drop(parts);
        self.load().await
    }

    /// Moves what the last [`Durable::load`] could not read to where it harms nobody and nobody overwrites it. What
    /// cannot be kept safely stays where it is; [`Durable::load`] leaves it out each time.
    async fn set_aside(&self) -> Result<Aside, StoreError>;

    /// Makes changes durable, and the events that tell of them part of the history, in one go: of each namespace all
    /// or nothing.
    ///
    /// Each change by the rules of [`Change::ruling`]: what was asked for and what was observed leave each other's fields
    /// alone, and a request that was planned on something older than the store has is [`StoreError::Conflict`] for its
    /// namespace.
    ///
    /// A store that writes everything in one transaction, as SQLite does, answers for all namespaces alike: an error, or
    /// no failed one. One that writes namespace by namespace, as Redis does, answers for each by itself: what is wrong
    /// with one hurts no other. An error says that none of it is known to be written.
    ///
    /// The changes come first: events for which there is no room are left out and come back in [`Committed::untold`].
    async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError>;

    /// Like [`Durable::commit`], for what must not wait until a full store has room again: removals and drains.
    /// A store that keeps a reserve for this case uses it now, and none of it for events.
    async fn commit_from_reserve(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        self.commit(changes, events).await
    }

    /// Those of these records that should be in the store and are not, although nobody removed them
    /// through a server: somebody deleted them by hand. None of them may be one that the store drops by itself. Not to be called while a commit is under way.
    async fn missing(&self, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError>;

    /// Asks whether the store is there and still carries the generation that [`Durable::load`] or [`Durable::refill`]
    /// saw. A single namespace that cannot be used is no failure of the store.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Gives a store that came back empty everything it has lost but the history, and a generation. `removed`: what must
    /// not come back, should another server or a backup bring it. After it, what others wrote meanwhile is still there, and [`Replicator::changes`] after the position tells it.
    /// Not atomic: when it fails halfway, do it again.
    async fn refill(&self, records: &[Arc<Record>], removed: &[Tombstone]) -> Result<Position, StoreError>;

    /// What happened in a namespace, newest first. A bookmark that is none of this store's means the newest.
    async fn history(&self, namespace: &Namespace, query: &HistoryQuery) -> Result<HistoryPage, StoreError>;
}

/// How a server hears of what other servers do.
pub trait Replicator: Send + Sync + fmt::Debug {
    /// What other servers committed after `after`. Never yields for embedded stores. Ends when it can no longer
    /// tell everything (the change log was trimmed, the store was emptied): then load again.
    ///
    /// An error is told once per outage; the stream heals by itself, and goes on without a gap or ends.
    fn changes(&self, after: Position) -> BoxStream<'static, Result<Foreign, StoreError>>;
}

/// A store that is both, as all of today's are: servers that share it hear of each other through it.
pub trait Store: Durable + Replicator {}

impl<T: Durable + Replicator> Store for T {}

/// What became of a commit that was carried out.
#[derive(Debug, Default)]
pub struct Committed {
    /// The namespaces of which nothing was written, and why. All others are durable.
    pub failed: BTreeMap<Namespace, StoreError>,
    /// Events of namespaces that were written for which there was no room, to be given again another time.
    pub untold: Vec<Event>,
    /// Whom [`Change::Forgotten`] is about and who is there all the same: see [`Ruling::Leave`](roundsman_registry::Ruling).
    pub left: HashSet<Key>,
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
    /// The records, those on probation included, as far as they were not handed over before.
    pub records: Vec<Record>,
    /// What was removed lately.
    pub removed: Vec<Tombstone>,
    /// What is there and cannot be read. See [`Durable::set_aside`].
    pub damaged: Vec<Damage>,
    /// Where [`Replicator::changes`] goes on.
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

/// How a record stands in a store.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It is there.
    There(Arc<Record>),
    /// It is gone.
    Gone(Tombstone),
}

/// A change that another server committed.
#[derive(Debug)]
pub struct Foreign {
    /// What came out.
    pub standing: Standing,
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
    /// There is no room left. Nothing was written; [`Durable::commit_from_reserve`] may still work.
    #[error("{reason}")]
    Full {
        /// In short, for clients.
        reason: String,
        /// The cause, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Another server was faster: requests of this batch were planned on something older than the store has, which is
    /// told. Nothing was written. Plan them anew.
    #[error("another server changed the same instances at the same time")]
    Conflict {
        /// What stands in the way.
        standings: Vec<Standing>,
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

// === impl Standing ===

impl Standing {
    fn of(key: Key, record: Option<Arc<Record>>, gone: u64) -> Self {
        record.map_or_else(|| Self::Gone(Tombstone { key, version: gone }), Self::There)
    }

    /// Which record it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::There(record) => record.key(),
            Self::Gone(tombstone) => tombstone.key.clone(),
        }
    }
}

// === impl StoreError ===

impl StoreError {
    fn unavailable(reason: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable { reason: reason.to_owned(), source: Some(source.into()) }
    }
}
