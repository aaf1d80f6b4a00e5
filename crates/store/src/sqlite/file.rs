//! Opening the file: whose it is, whether it is whole, and that nobody else uses it.
//!
//! A file that is refused is left exactly as it was: everything is looked at read-only, without locks of SQLite's and
//! without the `-wal` file that an ordinary connection would leave behind, before anything is opened for writing.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use roundsman_protocol::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{
    db::Db,
    error::{damaged, failed, io_failed, not_sqlite},
    reserve::{self, Reserve},
    schema::{self, check_version},
    table,
    write::REVIEW,
};
use crate::StoreError;

/// `Rman`, in the header of every file of ours.
const APPLICATION_ID: u32 = 0x526d_616e;
/// How long a commit waits for somebody who looks into the file with another program.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The file, taken for this server alone.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// What a look at the beginning of the file told.
enum Header {
    Empty,
    Ours,
}

// === impl Lock ===

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked and has not yet become another
        // program. When this fails there is nothing to unlock.
        drop(self.0.unlock());
    }
}

// === impl Identity ===

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The file that `path` leads to now, if any.
pub(super) fn identity(path: &Path) -> Result<Option<Identity>, StoreError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_failed(path, error)),
    }
}

/// Opens the file, and creates it when there is none. What is left of a reserve is given up when it needs that.
///
/// One of an earlier version is migrated, once a copy of it lies beside it.
pub(super) fn open(path: &Path, now: Timestamp) -> Result<Db, StoreError> {
    match try_open(path, now) {
        Err(StoreError::Full { .. }) if reserve::give_up_all(path) => try_open(path, now),
        result => result,
    }
}

fn try_open(path: &Path, now: Timestamp) -> Result<Db, StoreError> {
    let mut lock = lock(path)?;
    let header = header(path, &mut lock.0)?;
    // With a write-ahead log beside it, the file alone is not the whole truth.
    let settled = !has_content(path, "-wal") && !has_content(path, "-journal");
    if settled && matches!(header, Header::Ours) {
        look(path)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| failed(path, error))?;
    prepare(&mut connection, path, settled, now).map_err(|error| match error {
        Refusal::Sqlite(error) => failed(path, error),
        Refusal::Store(error) => error,
    })?;
    let identity = lock.0.metadata().map_err(|error| io_failed(path, error))?.into();
    let reserve = Reserve::beside(path);
    let db = Db {
        connection,
        places: None,
        reserve,
        version: None,
        unchecked: 0,
        history: None,
        untold: false,
        // What lies there from before is looked through once.
        buried: REVIEW,
        tried: None,
        identity,
        _lock: lock,
    };
    db.limit_log();
    Ok(db)
}

/// Takes the file for this server alone. An advisory lock that SQLite does not know, so that people can still
/// read the file with `sqlite3` while the server runs.
fn lock(path: &Path) -> Result<Lock, StoreError> {
    let exists = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => true,
        Ok(_) => return Err(StoreError::Unusable(format!("{} is not a file; name one", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(io_failed(path, error)),
    };
    let file = if exists { File::open(path).map_err(|error| io_failed(path, error))? } else { create(path)? };
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Unusable(format!("{} is in use by another server", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(io_failed(path, error)),
    }
}

fn create(path: &Path) -> Result<File, StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(StoreError::Unusable(format!(
            "{} cannot be created: the folder {} does not exist; create it or name another file",
            path.display(),
            folder.display()
        )));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(|error| io_failed(path, error))
}

fn header(path: &Path, file: &mut File) -> Result<Header, StoreError> {
    const LEN: usize = 100;
    let mut bytes = Vec::with_capacity(LEN);
    file.take(LEN as u64).read_to_end(&mut bytes).map_err(|error| io_failed(path, error))?;
    if bytes.is_empty() {
        return Ok(Header::Empty);
    }
    if bytes.len() < LEN || !bytes.starts_with(b"SQLite format 3\0") {
        return Err(not_sqlite(path));
    }
    let word = |at: usize| {
        let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    // Offsets from SQLite's file format: 60 the user version, 68 the application id.
    if word(68) != APPLICATION_ID {
        let path = path.display();
        return Err(StoreError::Unusable(format!("{path} is a SQLite file of another program; name another file")));
    }
    check_version(path, word(60))?;
    Ok(Header::Ours)
}

/// Whether SQLite left a file with something in it beside the main one.
fn has_content(path: &Path, suffix: &str) -> bool {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    std::fs::metadata(PathBuf::from(beside)).is_ok_and(|metadata| metadata.len() > 0)
}

/// Checks the file without leaving a trace.
fn look(path: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable(path), flags).map_err(|error| failed(path, error))?;
    check(&connection, path)
}

/// The file as a URI that promises SQLite that nobody writes to it, which spares it every lock and extra file.
fn immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Whether the file is whole, as far as records are concerned, and has the table we read. A history that is damaged
/// keeps no server from starting, and is not small.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let version = schema::version(connection).map_err(|error| failed(path, error))?;
    table::check(connection, version).map_err(|error| match &error {
        // The schema can be read, and does not have what we read.
        rusqlite::Error::SqlInputError { .. } => damaged(path, &error),
        _ if error.sqlite_error_code() == Some(ErrorCode::Unknown) => damaged(path, &error),
        _ => failed(path, error),
    })?;
    let sql = "PRAGMA quick_check('instances')";
    let found: String = connection.query_row(sql, [], |row| row.get(0)).map_err(|error| failed(path, error))?;
    if found == "ok" {
        return Ok(());
    }
    // The first line of several only names the database.
    Err(damaged(path, &found.lines().last().unwrap_or_default()))
}

enum Refusal {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(connection: &mut Connection, path: &Path, settled: bool, now: Timestamp) -> Result<(), Refusal> {
    // A log that was found beside the file stays there until the file is known to be good.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // More than there are: preparing one anew costs more than carrying it out.
    connection.set_prepared_statement_cache_capacity(64);
    if connection.is_readonly("main")? {
        return Err(Refusal::Store(StoreError::Unavailable { reason: "the file is read-only".into(), source: None }));
    }
    let version = schema::version(connection)?;
    check_version(path, version).map_err(Refusal::Store)?;
    if version == 0 {
        schema::create(connection, APPLICATION_ID, now)?;
    } else if !settled {
        check(connection, path).map_err(Refusal::Store)?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    if (1..schema::CURRENT).contains(&version) {
        schema::migrate(connection, path, version, now, &mut |_| ()).map_err(Refusal::Store)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}
