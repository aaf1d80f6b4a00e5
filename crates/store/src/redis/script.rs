//! The one script through which everything is written, and its answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{RedisResult, ScriptInvocation, aio::MultiplexedConnection};
use roundsman_protocol::{Event, Namespace};
use roundsman_registry::{Asked, Change, Key, Record, Tombstone, Tombstones};

use super::{
    Shared,
    layout::{Mark, index_key, prefix, removed_key, rest_of_key},
    link::PATIENCE,
};
use crate::{
    Standing, StoreError, events,
    stored::{COUNT, FIELDS, OWNERS, Owner, Reader, evicted_until, values},
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
    /// By the rules.
    Change(&'a Change),
    /// Puts a record into a store that lost it, unless it is there as late or later.
    Fill(&'a Record),
    /// Puts a record in the place of what a backup has of it, unless that is later.
    Restore(&'a Record),
    /// Takes out what must not be there.
    Bury(&'a Tombstone),
}

/// What goes into one call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writes<'a> {
    pub(super) changes: &'a [Write<'a>],
    pub(super) events: &'a [&'a Event],
}

/// What the script answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Done.
    Done {
        /// The last change now.
        mark: Mark,
        /// Whether the generation is new, and ours.
        created: bool,
        /// Whether the events are in the history.
        told: bool,
        /// Who is not forgotten after all.
        left: Vec<Key>,
    },
    /// Not done: the store lost what we know.
    Lost,
    /// Not done: a later attempt was faster.
    Late,
    /// Not done: requests were planned on something older than these.
    Conflict(Vec<Standing>),
}

// === impl Write ===

impl<'a> Write<'a> {
    /// Turns a fill into one that puts its record in the place of an older one.
    pub(super) fn overwrite(&mut self) {
        if let Self::Fill(record) = *self {
            *self = Self::Restore(record);
        }
    }

    /// Where it belongs.
    pub(super) fn namespace(self) -> &'a Namespace {
        match self {
            Self::Bury(tombstone) => &tombstone.key.namespace,
            Self::Change(change) => &change.record().instance.namespace,
            Self::Fill(record) | Self::Restore(record) => &record.instance.namespace,
        }
    }

    /// The name of the operation, the version it was planned on, and its own.
    fn operation(self) -> (&'static str, u64, u64) {
        match self {
            Self::Change(Change::Asked { record, expected }) => ("ask", *expected, record.asked.version),
            Self::Change(Change::Observed(record)) => ("see", 0, record.asked.version),
            Self::Change(Change::Removed { version, expected, .. }) => ("remove", *expected, *version),
            Self::Change(Change::Forgotten { record, version }) => ("forget", record.asked.version, *version),
            Self::Fill(record) => ("fill", 0, record.asked.version),
            Self::Restore(record) => ("restore", 0, record.asked.version),
            Self::Bury(tombstone) => ("bury", 0, tombstone.version),
        }
    }

    fn record(self) -> Option<&'a Record> {
        match self {
            Self::Change(change) => Some(change.record()),
            Self::Fill(record) | Self::Restore(record) => Some(record),
            Self::Bury(_) => None,
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
            Self::Conflict(standings) => Err(StoreError::Conflict { standings }),
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
        read(namespace, &answer)
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
        read(namespace, &answer).map(drop)
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
            self.add(&mut call, *write);
        }
        call.invoke_async(&mut connection).await
    }

    fn add(&self, call: &mut ScriptInvocation<'_>, write: Write<'_>) {
        let (op, expected, version) = write.operation();
        call.arg(op);
        match (write, write.record()) {
            (Write::Bury(tombstone), _) => {
                call.arg(0)
                    .arg(tombstone.key.id.as_str())
                    .arg("")
                    .arg(expected)
                    .arg(version)
                    .arg("")
                    .arg(&[""; COUNT][..]);
            }
            (_, Some(record)) => {
                call.arg(self.millis_to_live(record)).arg(record.instance.id.as_str()).arg(rest_of_key(record));
                call.arg(expected).arg(version).arg(record.asked.incarnation);
                for value in values(record) {
                    call.arg(&*value);
                }
            }
            // Only a tombstone has no record.
            (_, None) => {}
        }
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
            .key(removed_key(namespace))
            .arg(mode)
            .arg(&known.generation)
            .arg(super::random_name())
            .arg(known.sequence)
            .arg(&self.server)
            .arg(self.attempts.fetch_add(1, Ordering::Relaxed))
            .arg(STREAM_LENGTH)
            .arg(prefix)
            .arg(COUNT)
            .arg(&FIELDS[..])
            .arg(OWNERS.map(letter).iter().collect::<String>())
            .arg(Tombstones::oldest(self.clock.now()))
            .arg(Tombstones::MOST)
            .arg(Asked::LATEST);
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
pub(super) fn read(namespace: &Namespace, answer: &[String]) -> Result<Answer, StoreError> {
    match answer {
        [done, generation, last, rest @ ..] if done == "ok" || done == "new" => {
            let Ok(sequence) = last.parse() else {
                return Err(StoreError::Unusable("the stream of changes in Redis has ids that are not ours".into()));
            };
            let mark = Mark { generation: generation.clone(), sequence };
            let told = rest.first().is_none_or(|told| told == "told");
            let key = |id: &String| Some(Key { namespace: namespace.clone(), id: id.parse().ok()? });
            let left = rest.iter().skip(1).filter_map(key).collect();
            Ok(Answer::Done { mark, created: done == "new", told, left })
        }
        [lost] if lost == "lost" => Ok(Answer::Lost),
        [late] if late == "late" => Ok(Answer::Late),
        [conflict, rest @ ..] if conflict == "conflict" => Ok(Answer::Conflict(standings(namespace, rest))),
        _ => Err(StoreError::Unusable("redis answered a script with something else than the script returns".into())),
    }
}

/// What stands in the way of requests. A record that cannot be read is left out: the next look at the store finds it.
fn standings(namespace: &Namespace, answer: &[String]) -> Vec<Standing> {
    let mut reader = Reader::default();
    let standing = |entry: &[String]| {
        let ([id, gone], fields) = entry.split_first_chunk()?;
        let key = Key { namespace: namespace.clone(), id: id.parse().ok()? };
        if fields.iter().all(String::is_empty) {
            return Some(Standing::of(key, None, gone.parse().ok()?));
        }
        let texts = std::array::from_fn(|n| fields.get(n).map_or("", String::as_str));
        Some(Standing::There(Arc::new(reader.record(texts).ok()?)))
    };
    answer.chunks(2 + COUNT).filter_map(standing).collect()
}

fn letter(owner: Owner) -> char {
    match owner {
        Owner::Asked => 'a',
        Owner::Observed => 'o',
        Owner::Both => 'b',
    }
}
