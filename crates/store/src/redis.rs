//! The store that several servers share: Redis, laid out so that a person with redis-cli understands it.
//!
//! The layout is in [`layout`]. One script writes a batch of a namespace and its stream of changes in one go; a
//! batch over several namespaces is one call each, because in a cluster they live on different machines.
//!
//! What makes a loss visible: each namespace carries a generation, a random name that an emptied store no longer
//! has, and the changes are numbered without gaps, so that a backup from yesterday is seen to be behind.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{future::join_all, stream::BoxStream};
use redis::{AsyncTypedCommands, RedisResult, Script, aio::MultiplexedConnection};
use roundsman_protocol::{Clock, Event, HistoryPage, HistoryQuery, Namespace};
use roundsman_registry::{Change, Record, Tombstone};

use crate::{Aside, Committed, Description, Durable, Foreign, Keep, Position, Replicator, Snapshot, StoreError};

mod aside;
mod audit;
mod changes;
mod commit;
mod history;
mod layout;
mod link;
mod load;
mod script;

use aside::Unreadable;
use commit::by_namespace;
use layout::{Mark, Marks, position};
use link::{Link, PATIENCE};
use script::{Answer, Mode, Write, Writes};

/// How many records of a refill go into one call.
const REFILL_CHUNK: usize = 500;

/// Keeps records in Redis.
#[derive(Debug)]
pub(crate) struct RedisStore(Arc<Shared>);

/// What the store and its streams of changes have in common.
struct Shared {
    link: Link,
    location: String,
    retention: Duration,
    keep: Keep,
    clock: Clock,
    script: Script,
    /// Marks our changes, so that we do not read them back.
    server: String,
    /// Names this object as a writer, and numbers its attempts.
    writer: String,
    attempts: AtomicU64,
    /// What the store is known to have. Less than this is a loss.
    known: Mutex<Marks>,
    /// Generations that we gave to restored backups which are not filled up yet.
    restored: Mutex<BTreeMap<Namespace, String>>,
    /// The script that moves what cannot be read, and what the last load found of that kind.
    aside: Script,
    unreadable: Mutex<Vec<Unreadable>>,
}

// === impl RedisStore ===

impl RedisStore {
    /// A store at `url`, which is called `location` where people see it.
    pub(crate) fn new(url: String, location: String, retention: Duration, server: &str, keep: Keep) -> Self {
        Self(Arc::new(Shared {
            link: Link::new(url),
            location,
            retention,
            keep,
            clock: Clock::system(),
            script: Script::new(script::SOURCE),
            server: server.to_owned(),
            writer: random_name(),
            attempts: AtomicU64::new(1),
            known: Mutex::default(),
            restored: Mutex::default(),
            aside: Script::new(aside::SOURCE),
            unreadable: Mutex::default(),
        }))
    }
}

#[async_trait]
impl Durable for RedisStore {
    fn describe(&self) -> Description {
        Description { kind: "redis", location: self.0.location.clone() }
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.0.load().await
    }

    async fn set_aside(&self) -> Result<Aside, StoreError> {
        self.0.set_aside().await
    }

    async fn missing(&self, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
        self.0.missing(records).await
    }

    async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        self.0.commit(changes, events).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.0.probe().await
    }

    async fn refill(&self, records: &[Arc<Record>], removed: &[Tombstone]) -> Result<Position, StoreError> {
        let fills = records.iter().map(|record| Write::Fill(record));
        let mut writes = by_namespace(removed.iter().map(Write::Bury).chain(fills));
        let known = self.0.known().clone();
        for namespace in known.keys() {
            writes.entry(namespace).or_default();
        }
        let mut marks = Marks::new();
        for (namespace, writes) in &mut writes {
            marks.insert((*namespace).clone(), self.0.refill(namespace, writes).await?);
        }
        Ok(position(&marks))
    }

    async fn history(&self, namespace: &Namespace, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        self.0.history(namespace, query).await
    }
}

impl Replicator for RedisStore {
    fn changes(&self, after: Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
        changes::follow(Arc::clone(&self.0), &after)
    }
}

// === impl Shared ===

impl Shared {
    fn known(&self) -> MutexGuard<'_, Marks> {
        // Nothing can panic between two related changes of the map.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restored(&self) -> MutexGuard<'_, BTreeMap<Namespace, String>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self) -> MutexGuard<'_, Vec<Unreadable>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, namespace: &Namespace) -> Option<Mark> {
        self.known().get(namespace).cloned()
    }

    /// Notes that the store has reached `mark`.
    fn learn(&self, namespace: &Namespace, mark: &Mark) {
        let mut known = self.known();
        let known = known.entry(namespace.clone()).or_insert_with(|| mark.clone());
        if known.generation == mark.generation {
            known.sequence = known.sequence.max(mark.sequence);
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let known = self.known().clone();
        let mut connection = self.link.connection().await?;
        if known.is_empty() {
            return self.link.answer(PATIENCE, connection.ping()).await.map(drop);
        }
        for (_, answer) in self.link.answer(PATIENCE, self.check_all(&connection, &known)).await? {
            match answer {
                Ok(Answer::Lost) => return Err(StoreError::GenerationLost),
                // One namespace that cannot be used is for its commits to tell.
                Ok(_) | Err(StoreError::Unusable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks of each namespace whether it still is what we know of it. An error when the connection broke.
    async fn check_all<'a>(
        &self,
        connection: &MultiplexedConnection,
        marks: &'a Marks,
    ) -> RedisResult<Vec<(&'a Namespace, Result<Answer, StoreError>)>> {
        let checks = marks.iter().map(|(namespace, mark)| self.check(connection.clone(), namespace, mark));
        let answers = marks.keys().zip(join_all(checks).await);
        let sorted = answers.map(|(namespace, answer)| match answer {
            Ok(answer) => Ok((namespace, script::read(namespace, &answer))),
            Err(error) if link::is_broken(&error) => Err(error),
            Err(error) => Ok((namespace, Err(link::failed(error)))),
        });
        sorted.collect()
    }

    /// Gives one namespace a generation, unless another server was faster, and what it has lost.
    ///
    /// Until all of it is written, the old generation stays the one we know: a refill that fails halfway leaves a
    /// store that still counts as lost.
    async fn refill(&self, namespace: &Namespace, writes: &mut [Write<'_>]) -> Result<Mark, StoreError> {
        let lost = self.mark(namespace).unwrap_or_default();
        self.announce(namespace).await?;
        let start = self.call(Mode::Refill, namespace, &lost, Writes::default()).await?;
        let created = matches!(start, Answer::Done { created: true, .. });
        let start = start.mark()?;
        if created && start.sequence > 0 {
            self.restored().insert(namespace.clone(), start.generation.clone());
        }
        if self.restored().get(namespace) == Some(&start.generation) {
            // A backup: what is in it is older than what we hold.
            writes.iter_mut().for_each(Write::overwrite);
        }
        let (mut last, mut alone) = (start.clone(), start.sequence == 0);
        for writes in writes.chunks(REFILL_CHUNK) {
            let mark = self.call(Mode::Commit, namespace, &last, Writes::of(writes)).await?.mark()?;
            alone &= mark.sequence == last.sequence + writes.len() as u64;
            last = mark;
        }
        self.restored().remove(namespace);
        self.known().insert(namespace.clone(), last.clone());
        // When nobody else wrote, there is nothing to read again.
        Ok(if alone { last } else { Mark { sequence: 0, ..start } })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts.load(Ordering::Relaxed);
        f.debug_struct("Redis")
            .field("location", &self.location)
            .field("server", &self.server)
            .field("attempts", &attempts)
            .finish_non_exhaustive()
    }
}

/// Sixteen hexadecimal digits.
fn random_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}
