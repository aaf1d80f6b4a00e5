//! The table: one row per record, one column per field, `evicted_until` for those on probation. How it is read; how it is
//! written is in [`super::write`].

use std::{borrow::Cow, path::Path, sync::Arc};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Asked, Key, Record, Tombstone, Tombstones};
use rusqlite::{Connection, Row, types::ValueRef};

use super::{
    aside::Unreadable,
    db::Db,
    error::failed,
    places::{Places, REACH},
};
use crate::{
    StoreError,
    stored::{COUNT, FIELDS, Reader},
};

/// The columns that fields have, in their order.
pub(super) fn columns() -> String {
    let quoted: Vec<_> = FIELDS.iter().map(|field| format!("\"{field}\"")).collect();
    quoted.join(", ")
}

/// The version of the schema from which on what is asked for and what is observed are told apart.
const ASKED_AND_OBSERVED: u32 = 3;

/// How many fields a record had in a file of this version.
fn fields_of(version: u32) -> usize {
    match version {
        ..ASKED_AND_OBSERVED => 18,
        ASKED_AND_OBSERVED => 23,
        _ => COUNT,
    }
}

/// Whether the tables have the columns that we read, as far as a file of this version can.
pub(super) fn check(connection: &Connection, version: u32) -> rusqlite::Result<()> {
    let fields = FIELDS.get(..fields_of(version)).unwrap_or_default();
    // With the table's name before it: SQLite takes the name of a column that is not there, in quotes, for a text.
    let columns: Vec<_> = fields.iter().map(|field| format!("instances.\"{field}\"")).collect();
    let (place, until) = ("instances.\"place\"", "instances.\"evicted_until\"");
    connection.prepare(&format!("SELECT {place}, {}, {until} FROM instances", columns.join(", "))).map(drop)?;
    if version < ASKED_AND_OBSERVED {
        return Ok(());
    }
    connection.prepare("SELECT removed.\"namespace\", removed.\"id\", removed.\"version\" FROM removed").map(drop)
}

/// Leaves out those whose probation is over. Whoever is not evicted has no business with it, whatever the column says.
const LIVE: &str = "\"evicted_until\" IS NULL OR \"evicted_until\" > ?1 OR \"observed\" <> 'evicted'";

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The records that nobody has taken yet.
    pub(super) records: Vec<Record>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) removed: Vec<Tombstone>,
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
    let oldest = Tombstones::oldest(now);
    // RFC 3339 in UTC with three digits compares like the time it means.
    let now = now.to_string();
    if let Err(error) = db.connection.execute(&format!("DELETE FROM instances WHERE NOT ({LIVE})"), [&now]) {
        // A full disk must not keep a server from starting: they are left out below all the same.
        tracing::debug!(%error, "could not delete records whose probation is over");
    }
    read_all(db, &now, found, hand_over)
        .and_then(|()| {
            found.removed = removed(&db.connection, oldest)?;
            Ok(())
        })
        .map_err(|error| failed(path, error))
}

/// What was removed lately.
fn removed(connection: &Connection, oldest: u64) -> rusqlite::Result<Vec<Tombstone>> {
    let sql = "SELECT \"namespace\", \"id\", \"version\" FROM removed WHERE \"version\" >= ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([i64::try_from(oldest).unwrap_or(i64::MAX)])?;
    let mut removed = Vec::new();
    while let Some(row) = rows.next()? {
        let namespace = row.get_ref(0)?.as_str().ok().and_then(|text| text.parse().ok());
        let id = row.get_ref(1)?.as_str().ok().and_then(|text| text.parse().ok());
        let version = row.get::<_, i64>(2).ok().and_then(|version| u64::try_from(version).ok());
        let version = version.filter(|version| *version <= Asked::LATEST);
        // One that cannot be read guards nothing, and harms nobody.
        if let (Some(namespace), Some(id), Some(version)) = (namespace, id, version) {
            removed.push(Tombstone { key: Key { namespace, id }, version });
        }
    }
    Ok(removed)
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

/// A record from a row of [`columns`].
pub(super) fn read(reader: &mut Reader, row: &Row<'_>) -> Result<Record, Box<dyn std::error::Error>> {
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

/// Whether the file can be read.
pub(super) fn probe(db: &mut Db, path: &Path) -> Result<(), StoreError> {
    let mut statement =
        db.connection.prepare_cached("SELECT 1 FROM instances LIMIT 1").map_err(|error| failed(path, error))?;
    statement.exists([]).map(drop).map_err(|error| failed(path, error))
}
