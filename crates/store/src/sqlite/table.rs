//! The table: one row per record, one column per field, `evicted_until` for those on probation.

use std::{borrow::Cow, path::Path, time::Duration};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Change, Record};
use rusqlite::{Connection, Row, TransactionBehavior, params_from_iter, types::ValueRef};

use super::{
    error::{damaged, failed},
    file::Db,
};
use crate::{
    StoreError,
    stored::{COUNT, FIELDS, Reader, evicted_until, values},
};

/// The statement that makes the table. One tree instead of two (`WITHOUT ROWID`), because every page that a commit
/// touches is synced.
pub(super) fn create() -> String {
    let column = |field: &&str| match *field {
        "weight" => "\"weight\" INTEGER NOT NULL".to_owned(),
        field => format!("\"{field}\" TEXT NOT NULL"),
    };
    let columns: Vec<_> = FIELDS.iter().map(column).collect();
    format!(
        "CREATE TABLE instances ({}, \"evicted_until\" TEXT, PRIMARY KEY (\"namespace\", \"id\")) WITHOUT ROWID, STRICT",
        columns.join(", ")
    )
}

fn columns() -> String {
    let quoted: Vec<_> = FIELDS.iter().map(|field| format!("\"{field}\"")).collect();
    quoted.join(", ")
}

/// Whether the table has the columns that we read.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare(&format!("SELECT {}, \"evicted_until\" FROM instances", columns())).map(drop)
}

/// All records but those whose probation is over, which are deleted on the occasion.
pub(super) fn load(db: &mut Db, path: &Path, now: Timestamp) -> Result<Vec<Record>, StoreError> {
    // RFC 3339 in UTC with three digits compares like the time it means.
    let now = now.to_string();
    if let Err(error) = db.connection.execute("DELETE FROM instances WHERE evicted_until <= ?1", [&now]) {
        // A full disk must not keep a server from starting: they are left out below all the same.
        tracing::debug!(%error, "could not delete records whose probation is over");
    }
    let sql = format!("SELECT {} FROM instances WHERE evicted_until IS NULL OR evicted_until > ?1", columns());
    read_all(&db.connection, &sql, &now, path).map_err(|error| match error {
        Unread::Sqlite(error) => failed(path, error),
        Unread::Row(error) => error,
    })
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

fn read_all(connection: &Connection, sql: &str, now: &str, path: &Path) -> Result<Vec<Record>, Unread> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([now])?;
    let (mut records, mut reader) = (Vec::new(), Reader::default());
    while let Some(row) = rows.next()? {
        let texts = texts(row)?;
        let record = reader.record(std::array::from_fn(|n| texts.get(n).map_or("", |text| text)));
        records.push(record.map_err(|error| Unread::Row(damaged(path, &error)))?);
    }
    Ok(records)
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
    write(&mut db.connection, batch, retention).map_err(|error| failed(path, error))
}

fn write(connection: &mut Connection, batch: &[Change], retention: Duration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let marks = vec!["?"; COUNT + 1].join(", ");
        let put = format!("INSERT OR REPLACE INTO instances ({}, \"evicted_until\") VALUES ({marks})", columns());
        let mut put = transaction.prepare_cached(&put)?;
        let mut remove = transaction.prepare_cached("DELETE FROM instances WHERE namespace = ?1 AND id = ?2")?;
        for change in batch {
            match change {
                Change::Put(record) => {
                    let until = evicted_until(record, retention).map(|until| Cow::Owned(until.to_string()));
                    put.execute(params_from_iter(values(record).into_iter().map(Some).chain([until])))?;
                }
                Change::Remove(record) => {
                    remove.execute([record.instance.namespace.as_str(), record.instance.id.as_str()])?;
                }
            }
        }
    }
    transaction.commit()
}

/// Whether the file can be read.
pub(super) fn probe(db: &mut Db, path: &Path) -> Result<(), StoreError> {
    let mut statement =
        db.connection.prepare_cached("SELECT 1 FROM instances LIMIT 1").map_err(|error| failed(path, error))?;
    statement.exists([]).map(drop).map_err(|error| failed(path, error))
}
