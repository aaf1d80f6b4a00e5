//! Writing a batch, in one transaction, by the rules of [`Change::ruling`].

use std::{path::Path, sync::Arc, time::Duration};

use roundsman_protocol::{Event, Timestamp};
use roundsman_registry::{Asked, Change, Key, Part, Record, Ruling, Tombstone, Tombstones};
use rusqlite::{CachedStatement, Connection, OptionalExtension, TransactionBehavior};

use super::{
    error::failed,
    file::Db,
    history,
    places::{Places, Plan},
    table,
};
use crate::{
    Committed, Keep, Standing, StoreError,
    stored::{COUNT, FIELDS, OWNERS, Reader, evicted_until, values},
};

/// What is to be written in one go.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
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

/// The statements that carry a batch out.
struct Statements<'c> {
    put: CachedStatement<'c>,
    asked: CachedStatement<'c>,
    observed: CachedStatement<'c>,
    look: CachedStatement<'c>,
    remove: CachedStatement<'c>,
    gone: CachedStatement<'c>,
    bury: CachedStatement<'c>,
}

/// Writes a batch in one transaction, but for namespaces whose requests were planned on something older.
pub(super) fn commit(db: &mut Db, path: &Path, mut batch: Batch) -> Result<Committed, StoreError> {
    let mut committed = Committed::default();
    loop {
        match write_with_events(db, path, &batch) {
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
fn write_with_events(db: &mut Db, path: &Path, batch: &Batch) -> Result<bool, StoreError> {
    let error = match write(db, batch, &batch.events) {
        Ok(()) => return Ok(true),
        Err(Failure::Sqlite(error)) if !batch.events.is_empty() && may_be_the_history(&error) => error,
        Err(failure) => return Err(failure.told(path)),
    };
    db.history = None;
    write(db, batch, &[]).map_err(|failure| failure.told(path))?;
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
const REVIEW: usize = 10_000;

fn forget_tombstones(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let version = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
    connection.execute("DELETE FROM removed WHERE \"version\" < ?1", [version(Tombstones::oldest(now))])?;
    let sql = "DELETE FROM removed WHERE \"version\" <= (SELECT \"version\" FROM removed ORDER BY \"version\" DESC LIMIT 1 OFFSET ?1)";
    connection.execute(sql, [i64::try_from(Tombstones::MOST).unwrap_or(i64::MAX)]).map(drop)
}

fn write(db: &mut Db, batch: &Batch, events: &[Event]) -> Result<(), Failure> {
    if batch.changes.is_empty() && batch.removed.is_empty() && events.is_empty() {
        return Ok(());
    }
    let extent = if events.is_empty() { None } else { Some(db.history_extent()?) };
    let places = match &mut db.places {
        Some(places) => places,
        none => none.insert(Places::read(&db.connection)?),
    };
    let transaction = db.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut plan, mut in_the_way, mut buried) = (places.plan(), Vec::new(), 0);
    if !batch.changes.is_empty() || !batch.removed.is_empty() {
        let mut statements = Statements::prepare(&transaction)?;
        for change in &batch.changes {
            match statements.carry_out(change, &mut plan, batch.retention)? {
                Ruling::Conflict => in_the_way.push(change.key()),
                Ruling::Bury(_) => buried += 1,
                Ruling::Put(_) | Ruling::Leave => {}
            }
        }
        for tombstone in &batch.removed {
            statements.bury(tombstone, &mut plan)?;
        }
    }
    if !in_the_way.is_empty() {
        let standing = |key| standing(&transaction, &plan, key);
        return Err(Failure::Conflict(in_the_way.into_iter().map(standing).collect::<rusqlite::Result<_>>()?));
    }
    let plan = plan.done();
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
    Ok(())
}

/// How a record stands that a request was not planned on.
fn standing(connection: &Connection, plan: &Plan<'_>, key: Key) -> rusqlite::Result<Standing> {
    let sql = format!("SELECT {} FROM instances WHERE \"place\" = ?1", table::columns());
    let read = |row: &rusqlite::Row<'_>| Ok(table::read(&mut Reader::default(), row).ok());
    let record = connection.query_row(&sql, [plan.find(&key)], read).optional()?.flatten();
    let sql = "SELECT \"version\" FROM removed WHERE \"namespace\" = ?1 AND \"id\" = ?2";
    let gone = connection.query_row(sql, (key.namespace.as_str(), key.id.as_str()), |row| row.get::<_, i64>(0));
    let gone = gone.optional()?.and_then(|gone| u64::try_from(gone).ok()).unwrap_or_default();
    Ok(Standing::of(key, record.map(Arc::new), gone))
}

// === impl Statements ===

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let marks = vec!["?"; COUNT + 2].join(", ");
        let columns = table::columns();
        let put =
            format!("INSERT OR REPLACE INTO instances ({columns}, \"evicted_until\", \"place\") VALUES ({marks})");
        let look = "SELECT \"asked\", \"incarnation\", \"registered_at\" FROM instances WHERE \"place\" = ?1";
        let known = "WHERE \"namespace\" = ?1 AND \"id\" = ?2";
        Ok(Self {
            put: connection.prepare_cached(&put)?,
            asked: connection.prepare_cached(&update(Part::Asked, ""))?,
            observed: connection.prepare_cached(&update(Part::Observed, ", \"evicted_until\" = ?"))?,
            look: connection.prepare_cached(look)?,
            remove: connection.prepare_cached("DELETE FROM instances WHERE \"place\" = ?1")?,
            gone: connection.prepare_cached(&format!("SELECT \"version\" FROM removed {known}"))?,
            bury: connection.prepare_cached("INSERT OR REPLACE INTO removed VALUES (?1, ?2, ?3)")?,
        })
    }

    fn carry_out(&mut self, change: &Change, plan: &mut Plan<'_>, retention: Duration) -> rusqlite::Result<Ruling> {
        let key = change.key();
        let known = self.known(plan.find(&key))?;
        // Where there is a record, no tombstone is later than it.
        let gone = if known.is_some() { 0 } else { self.gone(&key)? };
        let ruling = change.ruling(known, gone);
        match ruling {
            Ruling::Put(part) => self.write(change.record(), part, plan.put(key), retention)?,
            Ruling::Bury(version) => self.bury(&Tombstone { key, version }, plan)?,
            Ruling::Leave | Ruling::Conflict => {}
        }
        Ok(ruling)
    }

    /// Takes out a record, unless its owner asked for something later.
    fn bury(&mut self, tombstone: &Tombstone, plan: &mut Plan<'_>) -> rusqlite::Result<()> {
        let Tombstone { key, version } = tombstone;
        if self.known(plan.find(key))?.is_some_and(|known| known.version > *version) {
            return Ok(());
        }
        if let Some(place) = plan.remove(key.clone()) {
            self.remove.execute([place])?;
        }
        let version = i64::try_from(*version).unwrap_or(i64::MAX);
        self.bury.execute((key.namespace.as_str(), key.id.as_str(), version)).map(drop)
    }

    fn known(&mut self, place: Option<i64>) -> rusqlite::Result<Option<Asked>> {
        let Some(place) = place else { return Ok(None) };
        self.look.query_row([place], asked).optional()
    }

    fn gone(&mut self, key: &Key) -> rusqlite::Result<u64> {
        let found = self.gone.query_row((key.namespace.as_str(), key.id.as_str()), |row| row.get::<_, i64>(0));
        Ok(found.optional()?.and_then(|version| u64::try_from(version).ok()).unwrap_or_default())
    }

    fn write(&mut self, record: &Record, part: Part, place: i64, retention: Duration) -> rusqlite::Result<()> {
        let until = evicted_until(record, retention).map(|until| until.to_string());
        let statement = match part {
            Part::All => &mut self.put,
            Part::Asked => &mut self.asked,
            Part::Observed => &mut self.observed,
        };
        let fields = values(record).into_iter().zip(OWNERS).filter(|(_, owner)| owner.writes(part));
        let mut at = 0;
        for (text, _) in fields {
            at += 1;
            statement.raw_bind_parameter(at, text)?;
        }
        if part != Part::Asked {
            at += 1;
            statement.raw_bind_parameter(at, until)?;
        }
        statement.raw_bind_parameter(at + 1, place)?;
        statement.raw_execute().map(drop)
    }
}

/// Writes the fields of one part.
fn update(part: Part, more: &str) -> String {
    let fields = FIELDS.iter().zip(OWNERS).filter(|(_, owner)| owner.writes(part));
    let set: Vec<_> = fields.map(|(field, _)| format!("\"{field}\" = ?")).collect();
    format!("UPDATE instances SET {}{more} WHERE \"place\" = ?", set.join(", "))
}

fn asked(row: &rusqlite::Row<'_>) -> rusqlite::Result<Asked> {
    let version = |n| row.get::<_, i64>(n).map(|version| u64::try_from(version).unwrap_or_default());
    let (mut version, mut incarnation) = (version(0)?, version(1)?);
    if version == 0 {
        // An earlier release wrote none, and the reader takes the same for it.
        let registered_at = row.get_ref(2)?.as_str().ok().and_then(|text| text.parse::<Timestamp>().ok());
        version = registered_at.map_or(0, Timestamp::as_millis);
        incarnation = version;
    }
    Ok(Asked { version, incarnation, draining: false })
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
