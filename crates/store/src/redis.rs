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
use futures::{future::try_join_all, stream::BoxStream};
use redis::{AsyncTypedCommands, Script};
use roundsman_protocol::{Clock, Namespace};
use roundsman_registry::{Change, Record};

use crate::{Aside, Description, Foreign, Position, Snapshot, Store, StoreError};

mod aside;
mod audit;
mod changes;
mod layout;
mod link;
mod load;
mod script;

use aside::Unreadable;
pub(crate) use layout::is_before;
use layout::{Mark, Marks, NAMESPACES, position};
use link::{Link, PATIENCE};
use script::{Answer, MAX_CHANGES, Mode, Write};

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
    pub(crate) fn new(url: String, location: String, retention: Duration, server: &str) -> Self {
        Self(Arc::new(Shared {
            link: Link::new(url),
            location,
            retention,
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
impl Store for RedisStore {
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

    async fn commit(&self, batch: &[Change]) -> Result<Position, StoreError> {
        let mut marks = Marks::new();
        for (namespace, writes) in by_namespace(batch.iter().map(Write::from)) {
            for writes in writes.chunks(MAX_CHANGES) {
                let mark = self.0.write(namespace, writes).await?;
                marks.insert(namespace.clone(), mark);
            }
        }
        Ok(position(&marks))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.0.probe().await
    }

    async fn refill(&self, records: &[Arc<Record>]) -> Result<Position, StoreError> {
        let mut writes = by_namespace(records.iter().map(|record| Write::Fill(record)));
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

    /// Writes to one namespace.
    async fn write(&self, namespace: &Namespace, writes: &[Write<'_>]) -> Result<Mark, StoreError> {
        let known = match self.mark(namespace) {
            Some(known) => known,
            None => {
                self.announce(namespace).await?;
                Mark::default()
            }
        };
        let mark = self.call(Mode::Commit, namespace, &known, writes).await?.mark()?;
        self.learn(namespace, &mark);
        Ok(mark)
    }

    /// Adds the namespace to the set of all, before anything is in it: an empty namespace there does no harm.
    async fn announce(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let mut connection = self.link.connection().await?;
        self.link.answer(PATIENCE, connection.sadd(NAMESPACES, namespace.as_str())).await.map(drop)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let known = self.known().clone();
        let mut connection = self.link.connection().await?;
        if known.is_empty() {
            return self.link.answer(PATIENCE, connection.ping()).await.map(drop);
        }
        let checks = known.iter().map(|(namespace, mark)| self.check(connection.clone(), namespace, mark));
        for answer in self.link.answer(PATIENCE, try_join_all(checks)).await? {
            if script::read(&answer)? == Answer::Lost {
                return Err(StoreError::GenerationLost);
            }
        }
        Ok(())
    }

    /// Gives one namespace a generation, unless another server was faster, and what it has lost.
    ///
    /// Until all of it is written, the old generation stays the one we know: a refill that fails halfway leaves a
    /// store that still counts as lost.
    async fn refill(&self, namespace: &Namespace, writes: &mut [Write<'_>]) -> Result<Mark, StoreError> {
        let lost = self.mark(namespace).unwrap_or_default();
        self.announce(namespace).await?;
        let start = self.call(Mode::Refill, namespace, &lost, &[]).await?;
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
            let mark = self.call(Mode::Commit, namespace, &last, writes).await?.mark()?;
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

fn by_namespace<'a>(writes: impl Iterator<Item = Write<'a>>) -> BTreeMap<&'a Namespace, Vec<Write<'a>>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for write in writes {
        groups.entry(write.namespace()).or_default().push(write);
    }
    groups
}

/// Sixteen hexadecimal digits.
fn random_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}
