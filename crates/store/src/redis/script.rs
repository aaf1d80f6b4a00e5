//! The one script through which everything is written, and its answers.

use std::{sync::atomic::Ordering, time::Duration};

use redis::{RedisResult, ScriptInvocation, aio::MultiplexedConnection};
use roundsman_protocol::{Event, Namespace};
use roundsman_registry::{Change, Record};

use super::{
    Shared,
    layout::{Mark, index_key, prefix, rest_of_key},
    link::PATIENCE,
};
use crate::{
    StoreError, events,
    stored::{COUNT, FIELDS, evicted_until, values},
};

/// The script, embedded.
pub(super) const SOURCE: &str = include_str!("commit.lua");
/// Most changes in one call: Redis takes a million arguments, and does nothing else while the script runs.
pub(super) const MAX_CHANGES: usize = 10_000;
/// How many changes a stream keeps, about. A server that was away for longer loads everything again.
const STREAM_LENGTH: u32 = 10_000;
/// What a change may add to the time in which Redis has to answer.
const PER_CHANGE: Duration = Duration::from_micros(500);

/// Why a late attempt fails.
pub(super) const LATE: &str = "a later write overtook this one";

/// What to do with the namespace. See `commit.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Check,
    Commit,
    Refill,
}

/// One change, as the script takes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Write<'a> {
    Put(&'a Record),
    /// Puts it unless there is one.
    Fill(&'a Record),
    Remove(&'a Record),
}

/// What goes into one call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writes<'a> {
    pub(super) changes: &'a [Write<'a>],
    pub(super) events: &'a [&'a Event],
}

/// What the script answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done.
    Done {
        /// The last change now.
        mark: Mark,
        /// Whether the generation is new, and ours.
        created: bool,
        /// Whether the events are in the history.
        told: bool,
    },
    /// Not done: the store lost what we know.
    Lost,
    /// Not done: a later attempt was faster.
    Late,
}

// === impl Write ===

impl<'a> Write<'a> {
    /// The write that makes `change` durable.
    pub(super) fn from(change: &'a Change) -> Self {
        match change {
            Change::Put(record) => Self::Put(record),
            Change::Remove(record) => Self::Remove(record),
        }
    }

    /// Turns a fill into a put.
    pub(super) fn overwrite(&mut self) {
        if let Self::Fill(record) = *self {
            *self = Self::Put(record);
        }
    }

    /// Where it belongs.
    pub(super) fn namespace(self) -> &'a Namespace {
        &self.parts().1.instance.namespace
    }

    fn parts(self) -> (&'static str, &'a Record) {
        match self {
            Self::Put(record) => ("put", record),
            Self::Fill(record) => ("fill", record),
            Self::Remove(record) => ("remove", record),
        }
    }
}

// === impl Writes ===

impl<'a> Writes<'a> {
    /// Changes alone.
    pub(super) fn of(changes: &'a [Write<'a>]) -> Self {
        Self { changes, events: &[] }
    }
}

// === impl Answer ===

impl Answer {
    /// The last change of the namespace.
    pub(super) fn mark(self) -> Result<Mark, StoreError> {
        match self {
            Self::Done { mark, .. } => Ok(mark),
            Self::Lost => Err(StoreError::GenerationLost),
            Self::Late => Err(StoreError::Unavailable { reason: LATE.into(), source: None }),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Calls the script on the common connection. A connection that turns out to be broken is replaced once: it
    /// may have been closed for idleness, and writing twice does no harm.
    pub(super) async fn call(
        &self,
        mode: Mode,
        namespace: &Namespace,
        known: &Mark,
        writes: Writes<'_>,
    ) -> Result<Answer, StoreError> {
        let count = writes.changes.len() + writes.events.len();
        let patience = PATIENCE + PER_CHANGE.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let connection = self.link.connection().await?;
        let request = self.request(connection, mode, namespace, known, writes);
        let answer = match self.link.answer(patience, request).await {
            Err(StoreError::Unavailable { source: Some(source), .. })
                if source.downcast_ref::<redis::RedisError>().is_some_and(super::link::is_broken) =>
            {
                let connection = self.link.connection().await?;
                let request = self.request(connection, mode, namespace, known, writes);
                self.link.answer(patience, request).await?
            }
            answer => answer?,
        };
        read(&answer)
    }

    /// Asks on a connection whether the namespace still is what we know of it.
    pub(super) async fn check(
        &self,
        connection: MultiplexedConnection,
        namespace: &Namespace,
        known: &Mark,
    ) -> RedisResult<Vec<String>> {
        self.request(connection, Mode::Check, namespace, known, Writes::default()).await
    }

    /// Takes ids out of the index whose records have expired.
    pub(super) async fn tidy(&self, namespace: &Namespace, known: &Mark, ids: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut connection = self.link.connection().await?;
        let mut call = self.head("tidy", namespace, known);
        call.arg(ids);
        let answer: Vec<String> = self.link.answer(PATIENCE, call.invoke_async(&mut connection)).await?;
        read(&answer).map(drop)
    }

    async fn request(
        &self,
        mut connection: MultiplexedConnection,
        mode: Mode,
        namespace: &Namespace,
        known: &Mark,
        writes: Writes<'_>,
    ) -> RedisResult<Vec<String>> {
        let name = match mode {
            Mode::Check => "check",
            Mode::Commit => "commit",
            Mode::Refill => "refill",
        };
        let mut call = self.head(name, namespace, known);
        if mode != Mode::Check {
            call.arg(writes.events.len());
        }
        if !writes.events.is_empty() {
            let oldest = self.keep.oldest(self.clock.now()).as_millis();
            call.arg(self.keep.events).arg(oldest).arg(events::COUNT).arg(&events::FIELDS[..]);
        }
        for event in writes.events {
            call.arg(event.at.as_millis());
            for field in events::fields(event) {
                call.arg(&*field);
            }
        }
        for write in writes.changes {
            let (op, record) = write.parts();
            call.arg(op).arg(self.millis_to_live(record)).arg(record.instance.id.as_str()).arg(rest_of_key(record));
            for value in values(record) {
                call.arg(&*value);
            }
        }
        call.invoke_async(&mut connection).await
    }

    fn head(&self, mode: &str, namespace: &Namespace, known: &Mark) -> ScriptInvocation<'_> {
        let prefix = prefix(namespace);
        let mut call = self.script.prepare_invoke();
        call.key(format!("{prefix}generation"))
            .key(format!("{prefix}changes"))
            .key(index_key(namespace))
            .key(format!("{prefix}writer:{}", self.writer))
            .key(format!("{prefix}history"))
            .key(format!("{prefix}history:cut"))
            .arg(mode)
            .arg(&known.generation)
            .arg(super::random_name())
            .arg(known.sequence)
            .arg(&self.server)
            .arg(self.attempts.fetch_add(1, Ordering::Relaxed))
            .arg(STREAM_LENGTH)
            .arg(prefix)
            .arg(COUNT)
            .arg(&FIELDS[..]);
        call
    }

    /// What is left of a record's probation, at least a moment; 0 for one that is live.
    fn millis_to_live(&self, record: &Record) -> u64 {
        let Some(until) = evicted_until(record, self.retention) else { return 0 };
        // A clock that runs ahead on another machine must not stretch it.
        let left = until.since(self.clock.now()).min(self.retention);
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Reads the script's answer.
pub(super) fn read(answer: &[String]) -> Result<Answer, StoreError> {
    match answer {
        [done, generation, last, rest @ ..] if done == "ok" || done == "new" => {
            let Ok(sequence) = last.parse() else {
                return Err(StoreError::Unusable("the stream of changes in Redis has ids that are not ours".into()));
            };
            let mark = Mark { generation: generation.clone(), sequence };
            let told = rest.first().is_none_or(|told| told == "told");
            Ok(Answer::Done { mark, created: done == "new", told })
        }
        [lost] if lost == "lost" => Ok(Answer::Lost),
        [late] if late == "late" => Ok(Answer::Late),
        _ => Err(StoreError::Unusable("redis answered a script with something else than the script returns".into())),
    }
}
