//! The embedded store: one SQLite file, in which a commit is on the disk before it is acknowledged.
//!
//! SQLite blocks, so it has a thread of its own; see [`worker`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use roundsman_protocol::{Clock, Event, HistoryPage, HistoryQuery, Namespace, Timestamp};
use roundsman_registry::{Change, Record, Tombstone};
use tokio::sync::{Semaphore, mpsc};

use crate::{Aside, Committed, Description, Durable, Foreign, Keep, Position, Replicator, Snapshot, StoreError};

mod aside;
mod backup;
mod db;
mod error;
mod file;
mod history;
mod load;
mod places;
mod reserve;
mod rows;
mod schema;
mod statements;
mod table;
mod worker;
mod write;

use aside::Unreadable;
use db::Db;
use file::Identity;
use worker::Worker;
use write::Batch;

/// Keeps records in a SQLite file of its own.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    path: PathBuf,
    retention: Duration,
    keep: Keep,
    clock: Clock,
    worker: Worker,
    /// A permit for a look at the history.
    looks: Semaphore,
}

/// What is open, and which file it was.
#[derive(Debug, Default)]
struct State {
    db: Option<Db>,
    /// The file whose contents this server relies on. When the path leads to another one, it lost them.
    known: Option<Identity>,
    /// What the last load could not read.
    unreadable: Vec<Unreadable>,
}

// === impl SqliteStore ===

impl SqliteStore {
    /// A store in the file at `path` that drops evicted records after `retention`.
    pub(crate) fn new(path: PathBuf, retention: Duration, keep: Keep) -> Self {
        let looks = Semaphore::new(1);
        Self { path, retention, keep, clock: Clock::system(), worker: Worker::default(), looks }
    }

    fn batch(&self, changes: Vec<Change>, events: &[Event]) -> Batch {
        let (retention, keep, now) = (self.retention, self.keep, self.clock.now());
        Batch { changes, removed: Vec::new(), refill: false, events: events.to_vec(), retention, keep, now }
    }

    async fn read(&self, parts: Option<mpsc::Sender<Vec<Record>>>) -> Result<Snapshot, StoreError> {
        let now = self.clock.now();
        self.run(move |state, path| {
            let mut read = load::Found::default();
            let mut hand_over = |records: &mut Vec<Record>| {
                let Some(parts) = &parts else { return };
                // When nobody takes them any more, they stay here.
                if let Err(back) = parts.blocking_send(std::mem::take(records)) {
                    *records = back.0;
                }
            };
            load::load(state.open(path, now)?, path, now, &mut read, &mut hand_over)?;
            let damaged = read.unreadable.iter().map(Unreadable::damage).collect();
            state.unreadable = read.unreadable;
            Ok(Snapshot { records: read.records, removed: read.removed, damaged, position: Position::default() })
        })
        .await
    }

    /// Runs `work` on the store's thread. Dropping the future does not stop it: a commit happens or not, never half.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let work = move |state: &mut State| {
            let result = work(state, &path);
            if matches!(&result, Err(error) if error::needs_reopening(error)) {
                state.db = None;
            }
            result
        };
        self.worker.run(work).await
    }
}

#[async_trait]
impl Durable for SqliteStore {
    fn describe(&self) -> Description {
        Description { kind: "sqlite", location: self.path.display().to_string() }
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.read(None).await
    }

    async fn load_in_parts(&self, parts: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, StoreError> {
        self.read(Some(parts)).await
    }

    async fn set_aside(&self) -> Result<Aside, StoreError> {
        let now = self.clock.now();
        self.run(move |state, path| {
            let rows = std::mem::take(&mut state.unreadable);
            aside::set_aside(&mut state.open(path, now)?.connection, path, &rows, now)
        })
        .await
    }

    async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        let batch = self.batch(changes.to_vec(), events);
        self.run(move |state, path| {
            let db = state.open(path, batch.now)?;
            db.keep_reserve()?;
            write::commit(db, path, batch)
        })
        .await
    }

    async fn commit_from_reserve(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        let batch = self.batch(changes.to_vec(), &[]);
        let committed = self.run(move |state, path| {
            let db = state.open(path, batch.now)?;
            match write::commit(db, path, batch.clone()) {
                Err(StoreError::Full { .. }) => {
                    db.use_reserve();
                    write::commit(db, path, batch)
                }
                result => result,
            }
        });
        Ok(Committed { untold: events.to_vec(), ..committed.await? })
    }

    async fn missing(&self, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
        let (records, now) = (records.to_vec(), self.clock.now());
        self.run(move |state, path| table::missing(state.open(path, now)?, path, &records)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let (now, keep) = (self.clock.now(), self.keep);
        self.run(move |state, path| {
            let db = state.open(path, now)?;
            table::probe(db, path)?;
            write::forget_the_old(db, &keep, now);
            db.tend_reserve()
        })
        .await
    }

    async fn refill(&self, records: &[Arc<Record>], removed: &[Tombstone]) -> Result<Position, StoreError> {
        // A backup may lie there. What is in it is older than what we hold.
        let both = |record: &Arc<Record>| {
            let asked = Change::Asked { record: Arc::clone(record), expected: u64::MAX };
            [asked, Change::Observed(Arc::clone(record))]
        };
        let changes = records.iter().flat_map(both).collect();
        let batch = Batch { removed: removed.to_vec(), refill: true, ..self.batch(changes, &[]) };
        self.run(move |state, path| {
            if !state.is_another_file(path)? {
                return write::commit(state.open(path, batch.now)?, path, batch);
            }
            // Until everything is in the new file, the old one stays what we rely on, and the store counts as lost.
            let mut fresh = State::default();
            let committed = write::commit(fresh.open(path, batch.now)?, path, batch)?;
            *state = fresh;
            Ok(committed)
        })
        .await?;
        Ok(Position::default())
    }

    async fn history(&self, namespace: &Namespace, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        let mut page = HistoryPage::default();
        let mut query = query.clone();
        let most = query.most();
        // One look after the other, and one at a time whoever asks: at most one stands before a commit.
        loop {
            // It is never closed.
            let _turn = self.looks.acquire().await;
            query.limit = u32::try_from(most - page.events.len()).unwrap_or(u32::MAX);
            let (namespace, asked, now) = (namespace.clone(), query.clone(), self.clock.now());
            let look = self.run(move |state, path| {
                let db = state.open(path, now)?;
                history::read(&db.connection, &namespace, &asked).map_err(|error| error::failed(path, error))
            });
            let found = look.await?;
            page.events.extend(found.events);
            page.next = found.next;
            if page.events.len() >= most || page.next.is_none() {
                return Ok(page);
            }
            query.after.clone_from(&page.next);
        }
    }
}

impl Replicator for SqliteStore {
    fn changes(&self, _after: Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
        futures::stream::pending().boxed()
    }
}

// === impl State ===

impl State {
    fn open(&mut self, path: &Path, now: Timestamp) -> Result<&mut Db, StoreError> {
        if self.is_another_file(path)? {
            return Err(StoreError::GenerationLost);
        }
        let db = match self.db.take() {
            Some(db) => db,
            None => file::open(path, now)?,
        };
        self.known = Some(db.identity());
        Ok(self.db.insert(db))
    }

    /// Whether the file that we relied on was deleted or replaced: SQLite would go on writing to where nobody looks.
    fn is_another_file(&self, path: &Path) -> Result<bool, StoreError> {
        match self.known {
            Some(known) => Ok(file::identity(path)? != Some(known)),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::Registration;
    use roundsman_registry::Key;

    fn put(n: u32) -> Change {
        put_as(n, 1)
    }

    fn put_as(n: u32, version: u64) -> Change {
        let registration = Registration {
            meta: [("filling", "x".repeat(2_000))].into_iter().collect(),
            ..Registration::new("product".parse().unwrap(), format!("10.0.0.1:{n}").parse().unwrap())
        };
        let key = Key { namespace: "default".parse().unwrap(), id: format!("product-{n}").parse().unwrap() };
        let record = Arc::new(Record::registered(&key, &registration, version, Timestamp::from_millis(1)));
        Change::Asked { record, expected: 0 }
    }

    async fn limit_pages(store: &SqliteStore, pages: u32) {
        let limit = move |state: &mut State, _: &Path| {
            state.db.as_ref().unwrap().connection.pragma_update(None, "max_page_count", pages).unwrap();
            Ok(())
        };
        store.run(limit).await.unwrap();
    }

    /// The variant of the full disk that needs no mount: SQLite answers a reached page limit with the same error.
    #[tokio::test]
    async fn a_full_disk_refuses_the_whole_batch_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::new(dir.path().join("r.db"), Duration::from_secs(60), Keep::default());
        store.load().await.unwrap();
        store.commit(&[put(1)], &[]).await.unwrap();
        limit_pages(&store, 16).await;
        let batch: Vec<_> = (2..1_000).map(put).collect();
        let error = store.commit(&batch, &[]).await.unwrap_err();
        assert!(matches!(&error, StoreError::Full { reason, .. } if reason == "the disk is full"), "{error}");
        assert_eq!(store.load().await.unwrap().records.len(), 1);
        // What takes something away is written all the same, and what grows waits until the reserve is whole again.
        let gone = Change::Removed { record: Arc::clone(put(1).record()), version: 2, expected: 1 };
        store.commit_from_reserve(&[gone], &[]).await.unwrap();
        assert_eq!(store.load().await.unwrap().records.len(), 0);
        store.commit(&[put_as(1, 3)], &[]).await.unwrap();
        limit_pages(&store, 1_000_000).await;
        store.commit(&batch, &[]).await.unwrap();
        assert_eq!(store.load().await.unwrap().records.len(), 999);
    }
}
