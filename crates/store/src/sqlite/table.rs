//! The table: one row per record, one column per field, `evicted_until` for those on probation. How all of it is read is in
//! [`super::load`], how it is written in [`super::write`].

use std::{path::Path, sync::Arc};

use roundsman_registry::{Key, Record};
use rusqlite::{Connection, Row};

use super::{db::Db, error::failed, places::Places, rows::Rows};
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

/// A record from a row of [`columns`].
pub(super) fn read(row: &Row<'_>) -> Result<Record, String> {
    let mut one = Rows::default();
    one.fetch(0, row);
    let texts = one.iter().next().map_or_else(|| Err(String::new()), |(_, texts)| texts)?;
    Reader::default().record(texts).map_err(|error| error.to_string())
}

/// A number that changes when another program writes to the file.
pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
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
