//! Reading everything, as it stood at one moment.
//!
//! Records are read in chunks, so that Redis goes on serving others meanwhile; what changed in between is then
//! applied from the stream, so that the result is exactly the state at its position.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use redis::{AsyncTypedCommands, Pipeline, streams::StreamRangeReply};
use roundsman_protocol::{InstanceId, Namespace};
use roundsman_registry::{Change, Record};

use super::{
    Mode, Shared,
    changes::{Entry, read_entry},
    layout::{Mark, Marks, NAMESPACES, changes_key, index_key, position, prefix},
    link::PATIENCE,
    script::Answer,
};
use crate::{
    Snapshot, StoreError,
    stored::{COUNT, FIELDS, Reader},
};

/// Records read in one request.
const CHUNK: usize = 500;
/// Changes read in one request.
const CHANGES: usize = 1_000;
/// How long Redis may take for a large request.
const LARGE: Duration = Duration::from_secs(10);

type Records = HashMap<InstanceId, Record>;
/// A record's fields as Redis returns them; all are absent when there is no record.
type Row = Vec<Option<Vec<u8>>>;

// === impl Shared ===

impl Shared {
    /// Everything. What was known before must still be there.
    pub(super) async fn load(&self) -> Result<Snapshot, StoreError> {
        let mut connection = self.link.connection().await.map_err(at_start)?;
        let names = self.link.answer(PATIENCE, connection.smembers(NAMESPACES)).await.map_err(at_start)?;
        let mut namespaces: BTreeSet<Namespace> = self.known().keys().cloned().collect();
        for name in names {
            match name.parse() {
                Ok(namespace) => drop(namespaces.insert(namespace)),
                Err(error) => tracing::warn!(key = NAMESPACES, %error, "left out a namespace that is none"),
            }
        }
        let (mut records, mut marks) = (Vec::new(), Marks::new());
        for namespace in namespaces {
            let (read, mark) = self.load_namespace(&namespace).await?;
            records.extend(read.into_values());
            marks.insert(namespace, mark);
        }
        Ok(Snapshot { records, position: position(&marks) })
    }

    async fn load_namespace(&self, namespace: &Namespace) -> Result<(Records, Mark), StoreError> {
        let is_new = self.mark(namespace).is_none();
        let start = self.write(namespace, &[]).await?;
        let (mut records, expired) = self.read_records(namespace).await?;
        let mark = self.catch_up(namespace, start, &mut records).await?;
        let still = self.call(Mode::Check, namespace, &mark, &[]).await?;
        if still == Answer::Lost {
            if is_new {
                self.known().remove(namespace);
            }
            return Err(changed_meanwhile());
        }
        self.tidy(namespace, &mark, &expired).await?;
        self.learn(namespace, &mark);
        Ok((records, mark))
    }

    /// The records that the index names, and the ids of those that are no longer there.
    async fn read_records(&self, namespace: &Namespace) -> Result<(Records, Vec<String>), StoreError> {
        let mut connection = self.link.connection().await?;
        let index = self.link.answer(LARGE, connection.hgetall(index_key(namespace))).await?;
        let index: Vec<_> = index.into_iter().collect();
        let (mut records, mut expired, mut reader) = (Records::new(), Vec::new(), Reader::default());
        let prefix = prefix(namespace);
        for chunk in index.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for (_, rest) in chunk {
                pipeline.cmd("HMGET").arg(format!("{prefix}{rest}")).arg(&FIELDS[..]);
            }
            let rows: Vec<Row> = self.link.answer(LARGE, pipeline.query_async(&mut connection)).await?;
            for ((id, rest), row) in chunk.iter().zip(&rows) {
                if row.iter().all(Option::is_none) {
                    expired.push(id.clone());
                    continue;
                }
                match read_row(&mut reader, row) {
                    Ok(record) => drop(records.insert(record.instance.id.clone(), record)),
                    Err(error) => tracing::warn!(key = format!("{prefix}{rest}"), %error, "left out a record"),
                }
            }
        }
        Ok((records, expired))
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
                let Entry::Next { change, .. } = read_entry(&mut reader, &mut mark, id) else {
                    return Err(changed_meanwhile());
                };
                match change {
                    Some(Change::Put(record)) => {
                        records.insert(record.instance.id.clone(), Record::clone(&record));
                    }
                    Some(Change::Remove(record)) => drop(records.remove(&record.instance.id)),
                    None => {}
                }
            }
        }
    }
}

fn read_row(reader: &mut Reader, row: &Row) -> Result<Record, Box<dyn std::error::Error + Send + Sync>> {
    let mut texts = [""; COUNT];
    for (text, value) in texts.iter_mut().zip(row) {
        *text = str::from_utf8(value.as_deref().unwrap_or_default())?;
    }
    Ok(reader.record(texts)?)
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
