//! The table: one row per record, one column per field, `evicted_until` for those on probation.

use std::{borrow::Cow, path::Path, sync::Arc, time::Duration};

use roundsman_protocol::{Event, Timestamp};
use roundsman_registry::{Change, Key, Record};
use rusqlite::{Connection, Row, TransactionBehavior, types::ValueRef};

use super::{
    aside::Unreadable,
    error::failed,
    file::Db,
    history,
    places::{Places, REACH},
};
use crate::{
    Keep, StoreError,
    stored::{COUNT, FIELDS, Reader, evicted_until, values},
};

fn columns() -> String {
    let quoted: Vec<_> = FIELDS.iter().map(|field| format!("\"{field}\"")).collect();
    quoted.join(", ")
}

/// Whether the table has the columns that we read.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    // With the table's name before it: SQLite takes the name of a column that is not there, in quotes, for a text.
    let columns: Vec<_> = FIELDS.iter().map(|field| format!("instances.\"{field}\"")).collect();
    let (place, until) = ("instances.\"place\"", "instances.\"evicted_until\"");
    connection.prepare(&format!("SELECT {place}, {}, {until} FROM instances", columns.join(", "))).map(drop)
}

/// Leaves out those whose probation is over. Whoever is not evicted has no business with it, whatever the column says.
const LIVE: &str = "\"evicted_until\" IS NULL OR \"evicted_until\" > ?1 OR \"observed\" <> 'evicted'";

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The records that nobody has taken yet.
    pub(super) records: Vec<Record>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// All records but those whose probation is over, which are deleted on the occasion; and the rows that cannot be read.
/// After each record, `hand_over` may take those that are there.
pub(super) fn load(
    db: &mut Db,
    path: &Path,
    now: Timestamp,
    found: &mut Found,
    hand_over: &mut dyn FnMut(&mut Vec<Record>),
) -> Result<(), StoreError> {
    // RFC 3339 in UTC with three digits compares like the time it means.
    let now = now.to_string();
    if let Err(error) = db.connection.execute(&format!("DELETE FROM instances WHERE NOT ({LIVE})"), [&now]) {
        // A full disk must not keep a server from starting: they are left out below all the same.
        tracing::debug!(%error, "could not delete records whose probation is over");
    }
    read_all(db, &now, found, hand_over).map_err(|error| failed(path, error))
}

fn read_all(
    db: &mut Db,
    now: &str,
    found: &mut Found,
    hand_over: &mut dyn FnMut(&mut Vec<Record>),
) -> rusqlite::Result<()> {
    let version = data_version(&db.connection)?;
    // What is written for people only need not be read.
    let columns = columns().replace("\"health\"", "''").replace("\"status\"", "''");
    let sql = format!("SELECT {columns}, \"place\" FROM instances WHERE {LIVE}");
    let mut statement = db.connection.prepare(&sql)?;
    let mut rows = statement.query([now])?;
    let (mut reader, mut places) = (Reader::default(), Places::default());
    while let Some(row) = rows.next()? {
        let place = row.get(COUNT)?;
        let record = read(&mut reader, row).and_then(|record| match places.add(record.key(), place) {
            Ok(()) => Ok(record),
            Err(other) => Err(format!("row {other} has the same namespace and id").into()),
        });
        match record {
            Ok(record) => found.records.push(record),
            Err(error) => found.unreadable.push(Unreadable { place, reason: error.to_string() }),
        }
        hand_over(&mut found.records);
    }
    let sql = "SELECT max(\"place\") FROM instances WHERE \"place\" <= ?1";
    places.skip_to(db.connection.query_row(sql, [REACH], |row| row.get(0))?);
    drop(rows);
    drop(statement);
    (db.places, db.version, db.unchecked) = (Some(places), Some(version), 0);
    // The pages that were read once are not read again.
    db.connection.execute_batch("PRAGMA shrink_memory")
}

fn read(reader: &mut Reader, row: &Row<'_>) -> Result<Record, Box<dyn std::error::Error>> {
    let mut texts = [const { Cow::Borrowed("") }; COUNT];
    for (n, text) in texts.iter_mut().enumerate() {
        let field = FIELDS.get(n).copied().unwrap_or_default();
        *text = match row.get_ref(n)? {
            ValueRef::Integer(number) => Cow::Owned(number.to_string()),
            other => Cow::Borrowed(other.as_str().map_err(|error| format!("field `{field}`: {error}"))?),
        };
    }
    Ok(reader.record(std::array::from_fn(|n| texts.get(n).map_or("", |text| text)))?)
}

/// A number that changes when another program writes to the file.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Those of these records whose rows somebody else deleted. Looked for only where another program has written since.
pub(super) fn missing(db: &mut Db, path: &Path, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
    find_missing(db, records).map_err(|error| failed(path, error))
}

fn find_missing(db: &mut Db, records: &[Arc<Record>]) -> rusqlite::Result<Vec<Arc<Record>>> {
    let version = Some(data_version(&db.connection)?);
    let places = match &mut db.places {
        Some(places) => places,
        none => none.insert(Places::read(&db.connection)?),
    };
    if db.version != version {
        (db.version, db.unchecked) = (version, places.len());
    }
    if db.unchecked == 0 {
        return Ok(Vec::new());
    }
    db.unchecked = db.unchecked.saturating_sub(records.len());
    let sql = "SELECT 1 FROM instances WHERE \"place\" = ?1 AND \"namespace\" = ?2 AND \"id\" = ?3";
    let mut statement = db.connection.prepare_cached(sql)?;
    let mut missing = Vec::new();
    for record in records {
        let Key { namespace, id } = record.key();
        let place = places.get(&record.key());
        if !statement.exists((place, namespace.as_str(), id.as_str()))? {
            missing.push(Arc::clone(record));
        }
    }
    Ok(missing)
}

/// What is to be written in one go.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) events: Vec<Event>,
    pub(super) retention: Duration,
    pub(super) keep: Keep,
    pub(super) now: Timestamp,
}

/// Writes a batch in one transaction. `false`: without its events, which would have kept the changes out.
pub(super) fn commit(db: &mut Db, path: &Path, batch: &Batch) -> Result<bool, StoreError> {
    let error = match write(db, batch, &batch.events) {
        Ok(()) => return Ok(true),
        Err(error) if batch.events.is_empty() || !may_be_the_history(&error) => return Err(failed(path, error)),
        Err(error) => error,
    };
    db.history = None;
    write(db, batch, &[]).map_err(|error| failed(path, error))?;
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

/// Drops what is too old in the history, a little at a time. It is no harm if that fails: it is tried again.
pub(super) fn forget_the_old(db: &mut Db, keep: &Keep, now: Timestamp) {
    let trimmed = db.history_extent().and_then(|extent| {
        let transaction = db.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let extent = history::trim(&transaction, extent, keep, now)?;
        transaction.commit()?;
        Ok(extent)
    });
    match trimmed {
        Ok(extent) => db.history = Some(extent),
        Err(error) => {
            db.history = None;
            tracing::debug!(%error, "could not trim the history");
        }
    }
}

fn write(db: &mut Db, batch: &Batch, events: &[Event]) -> rusqlite::Result<()> {
    if batch.changes.is_empty() && events.is_empty() {
        return Ok(());
    }
    let extent = if events.is_empty() { None } else { Some(db.history_extent()?) };
    let places = match &mut db.places {
        Some(places) => places,
        none => none.insert(Places::read(&db.connection)?),
    };
    let transaction = db.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut plan = places.plan();
    {
        let marks = vec!["?"; COUNT + 2].join(", ");
        let put =
            format!("INSERT OR REPLACE INTO instances ({}, \"evicted_until\", \"place\") VALUES ({marks})", columns());
        let mut put = transaction.prepare_cached(&put)?;
        let mut remove = transaction.prepare_cached("DELETE FROM instances WHERE \"place\" = ?1")?;
        for change in &batch.changes {
            match change {
                Change::Put(record) => {
                    let until = evicted_until(record, batch.retention).map(|until| Cow::Owned(until.to_string()));
                    for (n, text) in values(record).into_iter().map(Some).chain([until]).enumerate() {
                        put.raw_bind_parameter(n + 1, text)?;
                    }
                    put.raw_bind_parameter(COUNT + 2, plan.put(record.key()))?;
                    put.raw_execute()?;
                }
                Change::Remove(record) => {
                    if let Some(place) = plan.remove(record.key()) {
                        remove.execute([place])?;
                    }
                }
            }
        }
    }
    let plan = plan.done();
    let extent = match extent {
        Some(extent) => Some(history::append(&transaction, extent, events, &batch.keep, batch.now)?),
        None => None,
    };
    transaction.commit()?;
    // Only now: what was not committed lies nowhere.
    places.carry_out(plan);
    if extent.is_some() {
        (db.history, db.untold) = (extent, false);
    }
    Ok(())
}

/// Whether the file can be read.
pub(super) fn probe(db: &mut Db, path: &Path) -> Result<(), StoreError> {
    let mut statement =
        db.connection.prepare_cached("SELECT 1 FROM instances LIMIT 1").map_err(|error| failed(path, error))?;
    statement.exists([]).map(drop).map_err(|error| failed(path, error))
}
