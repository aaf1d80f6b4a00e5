//! A batch, namespace by namespace: each is one slot of a cluster, and what is wrong with one hurts no other.

use std::collections::BTreeMap;

use redis::AsyncTypedCommands;
use roundsman_protocol::{Event, Namespace};
use roundsman_registry::{Change, Key};

use super::{
    Shared,
    layout::{Mark, NAMESPACES},
    link::PATIENCE,
    script::{self, Answer, MAX_CHANGES, Mode, Write, Writes},
};
use crate::{Committed, StoreError};

/// What was written to a namespace.
#[derive(Debug)]
pub(super) struct Written {
    /// Where it stands now.
    pub(super) mark: Mark,
    /// Whether the events are part of it.
    told: bool,
    /// Who is not forgotten after all.
    left: Vec<Key>,
}

/// Why a namespace was not written.
enum Failure {
    /// Something is wrong with it alone.
    Namespace(StoreError),
    /// Something is wrong with Redis, or the way there.
    Store(StoreError),
    /// Redis was not asked any more, for this reason.
    Unasked(String),
}

// === impl Failure ===

impl Failure {
    fn of(error: StoreError) -> Self {
        let alone = match &error {
            StoreError::Unusable(_) | StoreError::Conflict { .. } => true,
            StoreError::Unavailable { reason, .. } => reason == script::LATE,
            StoreError::Full { .. } | StoreError::GenerationLost => false,
        };
        if alone { Self::Namespace(error) } else { Self::Store(error) }
    }
}

// === impl Shared ===

impl Shared {
    /// Writes a batch.
    pub(super) async fn commit(&self, changes: &[Change], events: &[Event]) -> Result<Committed, StoreError> {
        let (mut groups, mut told) = (by_namespace(changes.iter().map(Write::Change)), by_namespace_told(events));
        for namespace in told.keys() {
            groups.entry(namespace).or_default();
        }
        let mut committed = Committed::default();
        let mut any = false;
        let mut gone = None;
        for (namespace, changes) in groups {
            let events = told.remove(namespace).unwrap_or_default();
            let result = match &gone {
                None => self.commit_to(namespace, &changes, &events).await,
                Some(reason) => Err(Failure::Unasked(String::clone(reason))),
            };
            let error = match result {
                Ok((told, left)) => {
                    any = true;
                    committed.left.extend(left);
                    committed.untold.extend(events.into_iter().filter(|_| !told).cloned());
                    continue;
                }
                Err(Failure::Namespace(error)) => error,
                Err(Failure::Unasked(reason)) => StoreError::Unavailable { reason, source: None },
                // Nothing is known to be written, or all of it is written again after a refill.
                Err(Failure::Store(error)) if !any || matches!(error, StoreError::GenerationLost) => {
                    return Err(error);
                }
                Err(Failure::Store(error)) => {
                    gone = Some(error.to_string());
                    error
                }
            };
            committed.failed.insert(namespace.clone(), error);
        }
        Ok(committed)
    }

    /// Writes to one namespace, and tells whether the events are part of it and who is not forgotten after all. The events
    /// come with the last of the changes.
    async fn commit_to(
        &self,
        namespace: &Namespace,
        changes: &[Write<'_>],
        events: &[&Event],
    ) -> Result<(bool, Vec<Key>), Failure> {
        let mut parts: Vec<_> = changes.chunks(MAX_CHANGES).map(Writes::of).collect();
        match parts.last_mut() {
            Some(last) => last.events = events,
            None => parts.push(Writes { events, ..Writes::default() }),
        }
        let (mut told, mut left) = (true, Vec::new());
        for part in parts {
            let written = self.write(namespace, part).await.map_err(Failure::of)?;
            told = written.told;
            left.extend(written.left);
        }
        Ok((told, left))
    }

    /// Writes to one namespace in one call.
    pub(super) async fn write(&self, namespace: &Namespace, writes: Writes<'_>) -> Result<Written, StoreError> {
        let known = match self.mark(namespace) {
            Some(known) => known,
            None => {
                self.announce(namespace).await?;
                Mark::default()
            }
        };
        let answer = self.call(Mode::Commit, namespace, &known, writes).await?;
        let (mark, told, left) = match answer {
            Answer::Done { mark, told, left, .. } => (mark, told, left),
            other => (other.mark()?, true, Vec::new()),
        };
        self.learn(namespace, &mark);
        Ok(Written { mark, told, left })
    }

    /// Adds the namespace to the set of all, before anything is in it: an empty namespace there does no harm.
    pub(super) async fn announce(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let mut connection = self.link.connection().await?;
        self.link.answer(PATIENCE, connection.sadd(NAMESPACES, namespace.as_str())).await.map(drop)
    }
}

pub(super) fn by_namespace<'a>(writes: impl Iterator<Item = Write<'a>>) -> BTreeMap<&'a Namespace, Vec<Write<'a>>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for write in writes {
        groups.entry(write.namespace()).or_default().push(write);
    }
    groups
}

/// Events by namespace. One that is about all of them is left out: only stores make such marks.
fn by_namespace_told(events: &[Event]) -> BTreeMap<&Namespace, Vec<&Event>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        if let Some(namespace) = &event.namespace {
            groups.entry(namespace).or_default().push(event);
        }
    }
    groups
}
