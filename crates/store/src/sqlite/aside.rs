//! Rows that cannot be read, kept in a file beside the database: `PATH.damaged`.
//!
//! One JSON object a line: `{"at": …, "row": 7, "reason": "…", "columns": {"name": "product", "meta": {"hex": "ff00"}}}`.
//! A row leaves the table only once its line is on the disk. A crash in between leaves it in both places.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use roundsman_protocol::Timestamp;
use rusqlite::{Connection, types::ValueRef};
use serde_json::{Map, Value, json};

use super::error::failed;
use crate::{Aside, Damage, StoreError};

/// A row that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub(super) place: i64,
    pub(super) reason: String,
}

// === impl Unreadable ===

impl Unreadable {
    pub(super) fn damage(&self) -> Damage {
        Damage { what: format!("row {}", self.place), reason: self.reason.clone() }
    }
}

/// Where the damaged rows of a database are kept.
fn place(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".damaged");
    PathBuf::from(path)
}

/// Moves rows from the table into the file.
pub(super) fn set_aside(
    connection: &mut Connection,
    database: &Path,
    rows: &[Unreadable],
    now: Timestamp,
) -> Result<Aside, StoreError> {
    let path = place(database);
    let mut aside = Aside { place: path.display().to_string(), ..Aside::default() };
    if rows.is_empty() {
        return Ok(aside);
    }
    let lines = lines(connection, rows, now).map_err(|error| failed(database, error))?;
    if let Err(error) = append(&path, &lines) {
        aside.left = Some(format!("{} cannot be written: {error}", path.display()));
        return Ok(aside);
    }
    match delete(connection, rows) {
        Ok(()) => aside.moved = rows.len(),
        Err(error) => aside.left = Some(format!("they are in the file, but cannot be deleted: {error}")),
    }
    Ok(aside)
}

fn lines(connection: &Connection, rows: &[Unreadable], now: Timestamp) -> rusqlite::Result<Vec<u8>> {
    let mut statement = connection.prepare("SELECT * FROM instances WHERE \"place\" = ?1")?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut lines = Vec::new();
    for row in rows {
        let columns = statement.query_row([row.place], |found| {
            let mut columns = Map::new();
            for (n, name) in names.iter().enumerate() {
                columns.insert(name.clone(), readable(found.get_ref(n)?));
            }
            Ok(columns)
        })?;
        let line = json!({"at": now.to_string(), "row": row.place, "reason": row.reason, "columns": columns});
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    Ok(lines)
}

fn readable(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) => match str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => hex(bytes),
        },
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> Value {
    use std::fmt::Write;
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}"); // Writing to a String does not fail.
    }
    json!({ "hex": digits })
}

/// On the disk when it returns, all of it; otherwise none of it is left behind.
fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let before = file.metadata()?.len();
    let written = write(&mut file, before, lines);
    if written.is_err() {
        file.set_len(before)?;
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write(file: &mut File, length: u64, lines: &[u8]) -> io::Result<()> {
    if length > 0 {
        // A line that a crash cut off must not swallow ours.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all(lines)?;
    file.sync_all()
}

fn delete(connection: &mut Connection, rows: &[Unreadable]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut delete = transaction.prepare("DELETE FROM instances WHERE \"place\" = ?1")?;
        for row in rows {
            delete.execute([row.place])?;
        }
    }
    transaction.commit()
}
