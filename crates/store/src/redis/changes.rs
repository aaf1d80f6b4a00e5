//! What other servers committed, read from the streams of all namespaces.
//!
//! One connection of its own, on which reads block. Changes are numbered without gaps within a generation, so
//! a trimmed stream, an emptied store and a restored backup are all told from silence, and end the stream.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use redis::{
    RedisResult, Value,
    aio::MultiplexedConnection,
    streams::{StreamId, StreamReadReply},
};
use roundsman_protocol::{Namespace, Timestamp};
use roundsman_registry::Tombstone;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    layout::{Mark, Marks, changes_key, marks, namespace_of, position, sequence},
    link::{PATIENCE, failed},
    load::namespaces,
    script::Answer,
};
use crate::{
    Foreign, Position, Standing, StoreError,
    stored::{COUNT, FIELDS, Reader},
};

/// How long a read blocks. New namespaces and a lost generation are looked for in between.
const BLOCK: Duration = Duration::from_millis(BLOCK_MILLIS);
const BLOCK_MILLIS: u64 = 1_000;
/// Pause before trying again after a failure, and while there is no namespace yet.
const PAUSE: Duration = Duration::from_millis(250);
/// Most changes of a namespace in one read.
const COUNT_PER_READ: usize = 256;

/// An entry of a stream of changes.
pub(super) enum Entry {
    /// The one after the last. No change when its fields cannot be read.
    Next {
        /// Who committed it.
        by: String,
        /// What.
        standing: Option<Standing>,
    },
    /// Something is missing before it.
    Gap,
}

struct Follower {
    shared: Arc<Shared>,
    marks: Marks,
    /// Namespaces that cannot be used now: they must not keep the others from being heard of.
    left_out: BTreeSet<Namespace>,
    connection: Option<MultiplexedConnection>,
    checked: Option<Instant>,
    ready: VecDeque<Foreign>,
    reader: Reader,
    failing: bool,
}

enum Stop {
    /// There is something that can no longer be told.
    Gap,
    /// Redis does not answer now.
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// The changes after `after`.
pub(super) fn follow(shared: Arc<Shared>, after: &Position) -> BoxStream<'static, Result<Foreign, StoreError>> {
    let Some(marks) = marks(after) else { return stream::empty().boxed() };
    let follower = Follower {
        shared,
        marks,
        left_out: BTreeSet::new(),
        connection: None,
        checked: None,
        ready: VecDeque::new(),
        reader: Reader::default(),
        failing: false,
    };
    stream::unfold(follower, |mut follower| async { follower.next().await.map(|item| (item, follower)) }).boxed()
}

/// Reads an entry, and moves `mark` to it. What a server of an earlier release wrote has no version: it is as late as `now`,
/// or what it was asked for would count for nothing here while both releases run.
pub(super) fn read_entry(reader: &mut Reader, mark: &mut Mark, entry: &StreamId, now: Timestamp) -> Entry {
    let field = |name: &str| entry.map.get(name).and_then(text);
    let (number, generation) = (sequence(&entry.id), field("generation").unwrap_or_default());
    if number != Some(mark.sequence + 1) || (!mark.generation.is_empty() && generation != mark.generation) {
        return Entry::Gap;
    }
    mark.sequence += 1;
    generation.clone_into(&mut mark.generation);
    let texts: [&str; COUNT] = FIELDS.map(|name| field(name).unwrap_or_default());
    let mut record = reader.record(texts);
    if let (Ok(record), true) = (&mut record, field("asked").unwrap_or_default().is_empty()) {
        record.asked.version = record.asked.version.max(now.as_millis());
    }
    let standing = match (record, field("op")) {
        (Ok(record), Some("put")) => Some(Standing::There(Arc::new(record))),
        (Ok(record), Some("remove")) => {
            // A release before this one removed whatever there was.
            let version =
                field("gone").and_then(|gone| gone.parse().ok()).unwrap_or(record.asked.version.max(now.as_millis()));
            Some(Standing::Gone(Tombstone { key: record.key(), version }))
        }
        (Ok(_), op) => {
            tracing::warn!(entry = entry.id, ?op, "left out a change of an unknown kind");
            None
        }
        (Err(error), _) => {
            tracing::warn!(entry = entry.id, %error, "left out a change");
            None
        }
    };
    Entry::Next { by: field("by").unwrap_or_default().to_owned(), standing }
}

/// A field of an entry, if it is text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

// === impl Follower ===

impl Follower {
    /// The next change; an error once per outage; `None` after a gap.
    async fn next(&mut self) -> Option<Result<Foreign, StoreError>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            match self.round().await {
                Ok(()) => self.failing = false,
                Err(Stop::Gap) => return None,
                Err(Stop::Failed(error)) => {
                    (self.connection, self.checked) = (None, None);
                    if !std::mem::replace(&mut self.failing, true) {
                        return Some(Err(error));
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), Stop> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shared.link.connect().await?,
        };
        if self.checked.is_none_or(|checked| checked.elapsed() >= BLOCK) {
            self.look_around(&connection).await?;
            self.checked = Some(Instant::now());
        }
        if self.marks.len() == self.left_out.len() {
            sleep(PAUSE).await;
            self.checked = None;
        } else {
            self.read(connection.clone()).await?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Finds namespaces that are new, and those that are no longer what they were.
    async fn look_around(&mut self, connection: &MultiplexedConnection) -> Result<(), Stop> {
        let mut own = connection.clone();
        for name in within(PATIENCE, namespaces(&mut own)).await? {
            if let Ok(namespace) = String::from_utf8_lossy(&name).parse() {
                self.marks.entry(namespace).or_default();
            }
        }
        self.left_out.clear();
        let marks = self.marks.clone();
        for (namespace, answer) in within(PATIENCE, self.shared.check_all(connection, &marks)).await? {
            let found = match answer {
                Ok(Answer::Done { mark, .. }) => mark,
                Ok(_) => return Err(Stop::Gap),
                Err(StoreError::Unusable(why)) => {
                    tracing::debug!(%namespace, why, "left out a namespace that cannot be used");
                    self.left_out.insert(namespace.clone());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(mark) = self.marks.get_mut(namespace) else { continue };
            if mark.generation.is_empty() && !found.generation.is_empty() {
                mark.generation = found.generation;
                self.shared.learn(namespace, mark);
            }
        }
        Ok(())
    }

    async fn read(&mut self, mut connection: MultiplexedConnection) -> Result<(), Stop> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(COUNT_PER_READ).arg("BLOCK").arg(BLOCK_MILLIS).arg("STREAMS");
        let followed = self.marks.iter().filter(|(namespace, _)| !self.left_out.contains(*namespace));
        for (namespace, _) in followed.clone() {
            read.arg(changes_key(namespace));
        }
        for (_, mark) in followed {
            read.arg(format!("{}-0", mark.sequence));
        }
        let reply = read.query_async::<Option<StreamReadReply>>(&mut connection);
        for stream in within(BLOCK + PATIENCE, reply).await?.unwrap_or_default().keys {
            let Some(namespace) = namespace_of(&stream.key) else { continue };
            for entry in &stream.ids {
                self.take(&namespace, entry)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, namespace: &Namespace, entry: &StreamId) -> Result<(), Stop> {
        let (Some(mark), now) = (self.marks.get_mut(namespace), self.shared.clock.now()) else { return Ok(()) };
        let Entry::Next { by, standing } = read_entry(&mut self.reader, mark, entry, now) else {
            return Err(Stop::Gap);
        };
        self.shared.learn(namespace, mark);
        if let Some(standing) = standing.filter(|_| by != self.shared.server) {
            self.ready.push_back(Foreign { standing, position: position(&self.marks) });
        }
        Ok(())
    }
}

async fn within<T>(patience: Duration, request: impl Future<Output = RedisResult<T>> + Send) -> Result<T, StoreError> {
    match timeout(patience, request).await {
        Ok(answer) => answer.map_err(failed),
        Err(elapsed) => Err(StoreError::unavailable("redis does not answer", elapsed)),
    }
}
