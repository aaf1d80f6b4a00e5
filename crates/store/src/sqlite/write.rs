//! Writing a batch, in one transaction.

use std::{collections::HashSet, path::Path, time::Duration};

use roundsman_protocol::{Event, Timestamp};
use roundsman_registry::{Asked, Change, Key, Ruling, Tombstone, Tombstones};
use rusqlite::{Connection, TransactionBehavior};

use super::{db::Db, error::failed, history, places::Places, statements::Statements};
use crate::{Committed, Keep, Standing, StoreError};

/// What is to be written in one go.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// Whether the file was put there from elsewhere, and what it remembers as removed is of another past.
    pub(super) refill: bool,
    /// What must not be there, nor come back.
    pub(super) removed: Vec<Tombstone>,
    pub(super) events: Vec<Event>,
    pub(super) retention: Duration,
    pub(super) keep: Keep,
    pub(super) now: Timestamp,
}

/// Why a batch was not written.
enum Failure {
    Sqlite(rusqlite::Error),
    Conflict(Vec<Standing>),
}

/// Writes a batch in one transaction, but for namespaces whose requests were planned on something older.
pub(super) fn commit(db: &mut Db, path: &Path, mut batch: Batch) -> Result<Committed, StoreError> {
    let mut committed = Committed::default();
    loop {
        match write_with_events(db, path, &batch, &mut committed.left) {
            Err(StoreError::Conflict { standings }) => {
                for standing in standings {
                    let namespace = standing.key().namespace;
                    batch.changes.retain(|change| change.record().instance.namespace != namespace);
                    batch.events.retain(|event| event.namespace.as_ref() != Some(&namespace));
                    let failed = committed.failed.entry(namespace);
                    let failed = failed.or_insert(StoreError::Conflict { standings: Vec::new() });
                    if let StoreError::Conflict { standings } = failed {
                        standings.push(standing);
                    }
                }
            }
            Ok(true) => return Ok(committed),
            Ok(false) => return Ok(Committed { untold: batch.events, ..committed }),
            Err(error) => return Err(error),
        }
    }
}

/// Writes a batch. `false`: without its events, which would have kept the changes out.
fn write_with_events(db: &mut Db, path: &Path, batch: &Batch, left: &mut HashSet<Key>) -> Result<bool, StoreError> {
    let error = match write(db, batch, &batch.events) {
        Ok(keys) => {
            left.extend(keys);
            return Ok(true);
        }
        Err(Failure::Sqlite(error)) if !batch.events.is_empty() && may_be_the_history(&error) => error,
        Err(failure) => return Err(failure.told(path)),
    };
    db.history = None;
    left.extend(write(db, batch, &[]).map_err(|failure| failure.told(path))?);
    if !std::mem::replace(&mut db.untold, true) {
        tracing::warn!(%error, "the history cannot be written; what it tells of is");
    }
    Ok(false)
}

/// Whether a batch may fare better without its events: what keeps others out keeps out everything.
fn may_be_the_history(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, ReadOnly, SystemIoFailure};
    let everything = [CannotOpen, DatabaseBusy, DatabaseLocked, ReadOnly, SystemIoFailure];
    error.sqlite_error_code().is_none_or(|code| !everything.contains(&code))
}

/// Drops what is too old in the history and among the tombstones, a little at a time. It is no harm if that fails: it is
/// tried again.
pub(super) fn forget_the_old(db: &mut Db, keep: &Keep, now: Timestamp) {
    let trimmed = db.history_extent().and_then(|extent| {
        let transaction = db.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let extent = history::trim(&transaction, extent, keep, now)?;
        if db.buried >= REVIEW {
            forget_tombstones(&transaction, now)?;
        }
        transaction.commit()?;
        Ok(extent)
    });
    match trimmed {
        Ok(extent) => {
            db.history = Some(extent);
            if db.buried >= REVIEW {
                db.buried = 0;
            }
        }
        Err(error) => {
            db.history = None;
            tracing::debug!(%error, "could not trim the history");
        }
    }
}

/// After how many removals the table of tombstones is looked through. It has no index by age: it would cost each removal
/// more than the look.
pub(super) const REVIEW: usize = 10_000;

fn forget_tombstones(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let version = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
    let sql = "DELETE FROM removed WHERE \"version\" < ?1 OR \"version\" > ?2";
    connection.execute(sql, [version(Tombstones::oldest(now)), version(Asked::LATEST)])?;
    let sql = "DELETE FROM removed WHERE \"version\" <= (SELECT \"version\" FROM removed ORDER BY \"version\" DESC LIMIT 1 OFFSET ?1)";
    connection.execute(sql, [i64::try_from(Tombstones::MOST).unwrap_or(i64::MAX)]).map(drop)
}

/// Writes a batch, and tells who is not forgotten after all.
fn write(db: &mut Db, batch: &Batch, events: &[Event]) -> Result<Vec<Key>, Failure> {
    if batch.changes.is_empty() && batch.removed.is_empty() && events.is_empty() {
        return Ok(Vec::new());
    }
    let extent = if events.is_empty() { None } else { Some(db.history_extent()?) };
    let places = match &mut db.places {
        Some(places) => places,
        none => none.insert(Places::read(&db.connection)?),
    };
    let transaction = db.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut plan, mut in_the_way, mut left, mut buried) = (places.plan(), Vec::new(), Vec::new(), 0);
    if batch.refill {
        transaction.execute("DELETE FROM removed", [])?;
    }
    if !batch.changes.is_empty() || !batch.removed.is_empty() {
        let mut statements = Statements::prepare(&transaction)?;
        for change in &batch.changes {
            match statements.carry_out(change, &mut plan, batch.retention)? {
                Ruling::Conflict => in_the_way.push(change.key()),
                Ruling::Bury(_) => buried += 1,
                Ruling::Leave => left.extend(change.is_forgotten().then(|| change.key())),
                Ruling::Put(_) => {}
            }
        }
        for tombstone in &batch.removed {
            statements.bury(tombstone, &mut plan)?;
        }
    }
    let plan = plan.done();
    if !in_the_way.is_empty() {
        // What the batch would have written is no news for anybody.
        transaction.rollback()?;
        let mut statements = Statements::prepare(&db.connection)?;
        let standing = |key: Key| statements.standing(key.clone(), places.get(&key));
        return Err(Failure::Conflict(in_the_way.into_iter().map(standing).collect::<rusqlite::Result<_>>()?));
    }
    let extent = match extent {
        Some(extent) => Some(history::append(&transaction, extent, events, &batch.keep, batch.now)?),
        None => None,
    };
    transaction.commit()?;
    // Only now: what was not committed lies nowhere.
    places.carry_out(plan);
    db.buried += buried;
    if extent.is_some() {
        (db.history, db.untold) = (extent, false);
    }
    Ok(left)
}

// === impl Failure ===

impl Failure {
    fn told(self, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(error) => failed(path, error),
            Self::Conflict(standings) => StoreError::Conflict { standings },
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
