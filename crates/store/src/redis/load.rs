//! Reading everything, as it stood at one moment.
//!
//! Records are read in chunks, so that Redis goes on serving others meanwhile; what changed in between is then
//! applied from the stream, so that the result is exactly the state at its position.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use redis::{AsyncTypedCommands, Pipeline, RedisResult, Value, aio::MultiplexedConnection, streams::StreamRangeReply};
use roundsman_protocol::{InstanceId, Namespace};
use roundsman_registry::{Asked, Key, Record, Tombstone, Tombstones};

use super::{
    Mode, Shared,
    aside::{Found, Index, References, Unreadable},
    changes::{Entry, read_entry},
    layout::{Mark, Marks, NAMESPACES, changes_key, index_key, position, prefix, removed_key},
    link::PATIENCE,
    script::{Answer, Writes},
};
use crate::{
    Snapshot, Standing, StoreError,
    stored::{FIELDS, Reader},
};

/// Records read in one request.
const CHUNK: usize = 500;
/// Changes read in one request.
const CHANGES: usize = 1_000;
/// How long Redis may take for a large request.
const LARGE: Duration = Duration::from_secs(10);

/// The latest version that is believed.
#[allow(clippy::cast_precision_loss, reason = "a power of two")]
const LATEST: f64 = Asked::LATEST as f64;

type Records = HashMap<InstanceId, Record>;

// === impl Shared ===

impl Shared {
    /// Everything. What was known before must still be there.
    pub(super) async fn load(&self) -> Result<Snapshot, StoreError> {
        let mut connection = self.link.connection().await.map_err(at_start)?;
        let names = self.link.answer(PATIENCE, namespaces(&mut connection)).await.map_err(at_start)?;
        let mut namespaces: BTreeSet<Namespace> = self.known().keys().cloned().collect();
        for name in names {
            match String::from_utf8_lossy(&name).parse() {
                Ok(namespace) => drop(namespaces.insert(namespace)),
                Err(error) => tracing::warn!(key = NAMESPACES, %error, "left out a namespace that is none"),
            }
        }
        let (mut records, mut marks, mut unreadable) = (Vec::new(), Marks::new(), Vec::new());
        let mut removed = Vec::new();
        for namespace in namespaces {
            let (read, mark, damaged) = self.load_namespace(&namespace).await?;
            records.extend(read.into_values());
            unreadable.extend(damaged);
            removed.extend(self.removed(&namespace).await?);
            marks.insert(namespace, mark);
        }
        let damaged = unreadable.iter().map(Unreadable::damage).collect();
        *self.unreadable() = unreadable;
        Ok(Snapshot { records, removed, damaged, position: position(&marks) })
    }

    async fn load_namespace(&self, namespace: &Namespace) -> Result<(Records, Mark, Vec<Unreadable>), StoreError> {
        let is_new = self.mark(namespace).is_none();
        let start = self.write(namespace, Writes::default()).await?.mark;
        let (mut records, expired, mut unreadable) = self.read_records(namespace).await?;
        let mark = self.catch_up(namespace, start, &mut records).await?;
        // One that was written anew meanwhile is fine now.
        unreadable.retain(|found| !records.keys().any(|id| id.as_str().as_bytes() == found.id));
        let still = self.call(Mode::Check, namespace, &mark, Writes::default()).await?;
        if still == Answer::Lost {
            if is_new {
                self.known().remove(namespace);
            }
            return Err(changed_meanwhile());
        }
        self.tidy(namespace, &mark, &expired).await?;
        self.learn(namespace, &mark);
        Ok((records, mark, unreadable))
    }

    /// The records that the index names, the ids of those that are no longer there, and what cannot be read.
    async fn read_records(
        &self,
        namespace: &Namespace,
    ) -> Result<(Records, Vec<Vec<u8>>, Vec<Unreadable>), StoreError> {
        let mut connection = self.link.connection().await?;
        let mut ask = redis::cmd("HGETALL");
        let index = ask.arg(index_key(namespace)).query_async::<Index>(&mut connection);
        let index = self.link.answer(LARGE, index).await?;
        let references = References::of(&index);
        let (mut records, mut expired, mut unreadable) = (Records::new(), Vec::new(), Vec::new());
        let (mut reader, prefix) = (Reader::default(), prefix(namespace));
        for chunk in index.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            // A key that holds something else must not keep the others from being read.
            pipeline.ignore_errors();
            for (_, rest) in chunk {
                pipeline.cmd("HMGET").arg([prefix.as_bytes(), rest].concat()).arg(&FIELDS[..]);
            }
            let rows = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection);
            let rows = self.link.answer(LARGE, rows).await?;
            for (entry, row) in chunk.iter().zip(rows) {
                match references.read(&mut reader, namespace, entry, row) {
                    Found::Record(record) => drop(records.insert(record.instance.id.clone(), *record)),
                    Found::Nothing => expired.push(entry.0.clone()),
                    Found::Unreadable(found) => unreadable.push(found),
                }
            }
        }
        Ok((records, expired, unreadable))
    }

    /// What was removed lately.
    async fn removed(&self, namespace: &Namespace) -> Result<Vec<Tombstone>, StoreError> {
        let mut connection = self.link.connection().await?;
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(removed_key(namespace)).arg(Tombstones::oldest(self.clock.now())).arg("+inf").arg("WITHSCORES");
        let found = self.link.answer(LARGE, ask.query_async::<Vec<(Vec<u8>, f64)>>(&mut connection)).await;
        let found = match found {
            Err(StoreError::Unusable(error)) => {
                tracing::warn!(
                    key = removed_key(namespace),
                    error,
                    "what was removed is not remembered in this namespace"
                );
                return Ok(Vec::new());
            }
            found => found?,
        };
        let tombstone = |(id, version): (Vec<u8>, f64)| {
            let version = if version <= LATEST { version } else { return None };
            let id = String::from_utf8_lossy(&id).parse().ok()?;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "scores are exact up to 2^53, and not negative"
            )]
            Some(Tombstone { key: Key { namespace: namespace.clone(), id }, version: version.max(0.0) as u64 })
        };
        Ok(found.into_iter().filter_map(tombstone).collect())
    }

    /// Applies what was committed since `mark`.
    async fn catch_up(&self, namespace: &Namespace, mut mark: Mark, records: &mut Records) -> Result<Mark, StoreError> {
        let mut connection = self.link.connection().await?;
        let (key, mut reader) = (changes_key(namespace), Reader::default());
        loop {
            let from = format!("{}-0", mark.sequence + 1);
            let range = connection.xrange_count(&key, from, "+", CHANGES);
            let reply: StreamRangeReply = self.link.answer(LARGE, range).await?;
            if reply.ids.is_empty() {
                return Ok(mark);
            }
            for id in &reply.ids {
                let Entry::Next { standing, .. } = read_entry(&mut reader, &mut mark, id, self.clock.now()) else {
                    return Err(changed_meanwhile());
                };
                match standing {
                    Some(Standing::There(record)) => {
                        records.insert(record.instance.id.clone(), Record::clone(&record));
                    }
                    Some(Standing::Gone(tombstone)) => drop(records.remove(&tombstone.key.id)),
                    None => {}
                }
            }
        }
    }
}

/// The names of all namespaces, as they are: another program may have put anything there.
pub(super) async fn namespaces(connection: &mut MultiplexedConnection) -> RedisResult<Vec<Vec<u8>>> {
    redis::cmd("SMEMBERS").arg(NAMESPACES).query_async(connection).await
}

/// At the start, wrong credentials are for the operator; later they may be a rotation that is under way.
fn at_start(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { reason, .. } if reason == super::link::REFUSED => StoreError::Unusable(reason),
        other => other,
    }
}

fn changed_meanwhile() -> StoreError {
    StoreError::Unavailable { reason: "redis was emptied or overrun while it was read".into(), source: None }
}
