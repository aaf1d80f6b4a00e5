//! Reading everything that a file holds: SQLite's thread fetches the rows, another one makes records of them meanwhile.

use std::{path::Path, sync::mpsc, thread};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Asked, Key, Record, Tombstone, Tombstones};
use rusqlite::Connection;

use super::{
    aside::Unreadable,
    db::Db,
    error::failed,
    places::{Places, REACH},
    rows::Rows,
    table::{columns, data_version},
};
use crate::{
    StoreError,
    stored::{COUNT, Reader},
};

/// How many fetched parts wait for the thread that makes records of them.
const WAITING: usize = 2;

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

/// What may take the records that are there, after each part that was read.
pub(super) type HandOver<'a> = dyn FnMut(&mut Vec<Record>) + Send + 'a;

/// All records but those whose probation is over, which are deleted on the occasion; and the rows that cannot be read.
/// After each record, `hand_over` may take those that are there.
pub(super) fn load(
    db: &mut Db,
    path: &Path,
    now: Timestamp,
    found: &mut Found,
    hand_over: &mut HandOver<'_>,
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

fn read_all(db: &mut Db, now: &str, found: &mut Found, hand_over: &mut HandOver<'_>) -> rusqlite::Result<()> {
    let version = data_version(&db.connection)?;
    let (parts, fetched) = mpsc::sync_channel(WAITING);
    // They go round: what is allocated for a moment among all that stays leaves holes.
    let (used, spare) = mpsc::sync_channel(WAITING);
    let mut places = thread::scope(|scope| {
        let making = scope.spawn(move || make_records(&fetched, &used, found, hand_over));
        let result = fetch_all(&db.connection, now, &parts, &spare);
        drop(parts);
        // A panic there is one here.
        let places = making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map(|()| places)
    })?;
    let sql = "SELECT max(\"place\") FROM instances WHERE \"place\" <= ?1";
    places.skip_to(db.connection.query_row(sql, [REACH], |row| row.get(0))?);
    (db.places, db.version, db.unchecked) = (Some(places), Some(version), 0);
    // The pages that were read once are not read again.
    db.connection.execute_batch("PRAGMA shrink_memory")
}

fn fetch_all(
    connection: &Connection,
    now: &str,
    parts: &mpsc::SyncSender<Rows>,
    spare: &mpsc::Receiver<Rows>,
) -> rusqlite::Result<()> {
    // What is written for people only need not be read.
    let columns = columns().replace("\"health\"", "''").replace("\"status\"", "''");
    let sql = format!("SELECT {columns}, \"place\" FROM instances WHERE {LIVE}");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([now])?;
    let mut part = Rows::default();
    while let Some(row) = rows.next()? {
        part.fetch(row.get(COUNT)?, row);
        if part.is_full() {
            let full = std::mem::replace(&mut part, spare.try_recv().unwrap_or_default());
            // Nobody takes them when the other thread panicked, which its end will tell.
            if parts.send(full).is_err() {
                return Ok(());
            }
        }
    }
    // The same holds for the last of them.
    let _ = parts.send(part);
    Ok(())
}

/// Makes records of rows as they come, and tells where each lies.
fn make_records(
    fetched: &mpsc::Receiver<Rows>,
    used: &mpsc::SyncSender<Rows>,
    found: &mut Found,
    hand_over: &mut HandOver<'_>,
) -> Places {
    let (mut reader, mut places) = (Reader::default(), Places::default());
    for mut part in fetched {
        for (place, row) in part.iter() {
            let record = row.and_then(|texts| reader.record(texts).map_err(|error| error.to_string()));
            let record = record.and_then(|record| match places.add(record.key(), place) {
                Ok(()) => Ok(record),
                Err(other) => Err(format!("row {other} has the same namespace and id")),
            });
            match record {
                Ok(record) => found.records.push(record),
                Err(reason) => found.unreadable.push(Unreadable { place, reason }),
            }
        }
        hand_over(&mut found.records);
        part.clear();
        // One too many is dropped.
        let _ = used.try_send(part);
    }
    places
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
