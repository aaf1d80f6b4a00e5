//! The table: one row per record, one column per field, `evicted_until` for those on probation.

use std::{borrow::Cow, path::Path, time::Duration};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Change, Record};
use rusqlite::{Connection, Row, TransactionBehavior, types::ValueRef};

use super::{
    error::{damaged, failed},
    file::Db,
    places::Places,
};
use crate::{
    StoreError,
    stored::{COUNT, FIELDS, Reader, evicted_until, values},
};

/// The statement that makes the table. Its key is a number that [`Places`] gives out: new rows then lie side by side, where a key
/// made of namespace and id would touch another page for each of them, and every page that a commit touches is written twice.
pub(super) fn create() -> String {
    let column = |field: &&str| match *field {
        "weight" => "\"weight\" INTEGER NOT NULL".to_owned(),
        field => format!("\"{field}\" TEXT NOT NULL"),
    };
    let columns: Vec<_> = FIELDS.iter().map(column).collect();
    format!(
        "CREATE TABLE instances (\"place\" INTEGER PRIMARY KEY, {}, \"evicted_until\" TEXT) STRICT",
        columns.join(", ")
    )
}

fn columns() -> String {
    let quoted: Vec<_> = FIELDS.iter().map(|field| format!("\"{field}\"")).collect();
    quoted.join(", ")
}

/// Whether the table has the columns that we read.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare(&format!("SELECT \"place\", {}, \"evicted_until\" FROM instances", columns())).map(drop)
}

/// All records but those whose probation is over, which are deleted on the occasion.
pub(super) fn load(db: &mut Db, path: &Path, now: Timestamp) -> Result<Vec<Record>, StoreError> {
    // RFC 3339 in UTC with three digits compares like the time it means.
    let now = now.to_string();
    if let Err(error) = db.connection.execute("DELETE FROM instances WHERE evicted_until <= ?1", [&now]) {
        // A full disk must not keep a server from starting: they are left out below all the same.
        tracing::debug!(%error, "could not delete records whose probation is over");
    }
    let sql =
        format!("SELECT {}, \"place\" FROM instances WHERE evicted_until IS NULL OR evicted_until > ?1", columns());
    let (records, places) = read_all(&db.connection, &sql, &now, path).map_err(|error| match error {
        Unread::Sqlite(error) => failed(path, error),
        Unread::Row(error) => error,
    })?;
    db.places = Some(places);
    Ok(records)
}

enum Unread {
    Sqlite(rusqlite::Error),
    Row(StoreError),
}

impl From<rusqlite::Error> for Unread {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn read_all(connection: &Connection, sql: &str, now: &str, path: &Path) -> Result<(Vec<Record>, Places), Unread> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([now])?;
    let (mut records, mut reader, mut places) = (Vec::new(), Reader::default(), Places::default());
    while let Some(row) = rows.next()? {
        let texts = texts(row)?;
        let record = reader.record(std::array::from_fn(|n| texts.get(n).map_or("", |text| text)));
        let record = record.map_err(|error| Unread::Row(damaged(path, &error)))?;
        places.add(record.key(), row.get(COUNT)?);
        records.push(record);
    }
    places.skip_to(connection.query_row("SELECT max(\"place\") FROM instances", [], |row| row.get(0))?);
    Ok((records, places))
}

fn texts<'row>(row: &'row Row<'_>) -> rusqlite::Result<[Cow<'row, str>; COUNT]> {
    let mut texts = [const { Cow::Borrowed("") }; COUNT];
    for (n, text) in texts.iter_mut().enumerate() {
        *text = match row.get_ref(n)? {
            ValueRef::Integer(number) => Cow::Owned(number.to_string()),
            other => Cow::Borrowed(other.as_str()?),
        };
    }
    Ok(texts)
}

/// Writes a batch in one transaction.
pub(super) fn commit(db: &mut Db, path: &Path, batch: &[Change], retention: Duration) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    write(db, batch, retention).map_err(|error| failed(path, error))
}

fn write(db: &mut Db, batch: &[Change], retention: Duration) -> rusqlite::Result<()> {
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
        for change in batch {
            match change {
                Change::Put(record) => {
                    let until = evicted_until(record, retention).map(|until| Cow::Owned(until.to_string()));
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
    transaction.commit()?;
    // Only now: what was not committed lies nowhere.
    places.carry_out(plan);
    Ok(())
}

/// Whether the file can be read.
pub(super) fn probe(db: &mut Db, path: &Path) -> Result<(), StoreError> {
    let mut statement =
        db.connection.prepare_cached("SELECT 1 FROM instances LIMIT 1").map_err(|error| failed(path, error))?;
    statement.exists([]).map(drop).map_err(|error| failed(path, error))
}
