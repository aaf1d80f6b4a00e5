//! The copy that is made before a file is migrated: `PATH.before-4` before it becomes version 4.
//!
//! It gets its name once all of it is on the disk, and never the name of an earlier one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    types::{ToSqlOutput, ValueRef},
};

use super::error::{failed, io_failed};
use crate::StoreError;

/// Most copies of one version. Whoever has so many has another trouble.
const MOST: u32 = 100;

/// Copies the file as it is now, whatever part of it is still in the log. Where an earlier copy says the same, that
/// one is it.
pub(super) fn make(connection: &Connection, path: &Path, version: u32) -> Result<PathBuf, StoreError> {
    let name = beside(path, &format!(".before-{version}"));
    let part = beside(&name, ".part");
    let copied = copy(connection, path, &part).and_then(|()| {
        let place = settle(&part, &name).map_err(|error| io_failed(&name, error))?;
        sync_folder(path).map_err(|error| io_failed(path, error))?;
        Ok(place)
    });
    copied.map_err(|error| {
        // Half a copy only takes room. When it cannot be deleted, the next attempt tries that first.
        drop(fs::remove_file(&part));
        explained(path, &name, error)
    })
}

fn explained(path: &Path, copy: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Full { source, .. } => {
            let size = fs::metadata(path).map_or(0, |metadata| metadata.len()).div_ceil(1 << 20);
            let (path, copy) = (path.display(), copy.display());
            let reason = format!(
                "the disk is full: {path} is from an earlier version, and {copy}, the copy that is made before it is \
                 migrated, needs {size} MB"
            );
            StoreError::Full { reason, source }
        }
        other => other,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn copy(connection: &Connection, path: &Path, part: &Path) -> Result<(), StoreError> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_failed(part, error)),
        _ => {}
    }
    // Made by us, so that nobody may read the copy who may not read the file. SQLite takes an empty one.
    let mode = fs::metadata(path).map_err(|error| io_failed(path, error))?.permissions().mode();
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(part);
    let made = made.map_err(|error| io_failed(part, error))?;
    // As bytes, because a path need not be UTF-8.
    let name = ToSqlOutput::Borrowed(ValueRef::Text(part.as_os_str().as_bytes()));
    connection.execute("VACUUM INTO ?1", [name]).map_err(|error| failed(path, error))?;
    // SQLite does not do that for a copy.
    made.sync_all().map_err(|error| io_failed(part, error))
}

/// Gives the finished copy its name, the first one that is free.
fn settle(part: &Path, name: &Path) -> io::Result<PathBuf> {
    for number in 1..=MOST {
        let place = if number == 1 { name.to_owned() } else { beside(name, &format!(".{number}")) };
        if fs::symlink_metadata(&place).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            fs::rename(part, &place)?;
            return Ok(place);
        }
        if same(part, &place).unwrap_or(false) {
            fs::remove_file(part)?;
            return Ok(place);
        }
    }
    Err(io::Error::other(format!("there are {MOST} copies already; delete those that nobody needs")))
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let (kind, len) = (other.metadata()?.is_file(), other.metadata()?.len());
    if !kind || one.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one).bytes(), BufReader::new(other).bytes());
    loop {
        match (one.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(true),
            (one, other) if one == other => {}
            _ => return Ok(false),
        }
    }
}

/// A new name is on the disk once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_is_in_the_log_and_never_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r ü.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1); PRAGMA user_version = 1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let first = make(&connection, &path, 2).unwrap();
        assert_eq!(first, dir.path().join("r ü.db.before-2"));
        assert_eq!(make(&connection, &path, 2).unwrap(), first, "nothing has changed");
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        // What a killed process left is no copy.
        fs::write(dir.path().join("r ü.db.before-2.part"), "half of it").unwrap();
        let second = make(&connection, &path, 2).unwrap();
        assert_eq!(second, dir.path().join("r ü.db.before-2.2"));
        for (copy, rows) in [(&first, 1), (&second, 2)] {
            let copy = Connection::open(copy).unwrap();
            let sql = "SELECT count(*), (SELECT user_version FROM pragma_user_version) FROM t";
            let found = copy.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(found, (rows, 1));
        }
        assert_eq!(fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!dir.path().join("r ü.db.before-2.part").exists());
    }
}
