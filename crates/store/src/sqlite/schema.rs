//! The versions of the schema: how a file of an earlier one becomes one of today's, and a new file its first.
//!
//! A new file goes through the same steps as one that was written years ago, so there is one schema and not two
//! that ought to be alike. Which steps a file has been through stands in its table `schema_versions`, for people;
//! what servers go by is `user_version` in its header, which also releases without that table look at.

use std::path::Path;

use roundsman_protocol::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::{backup, error::failed};
use crate::StoreError;

/// The version that this server writes.
pub(super) const CURRENT: u32 = 4;

/// What makes each version out of the one before, version 1 out of nothing. Never edited once released: files out
/// there went through them as they are.
const STEPS: [(u32, &str); CURRENT as usize] = [
    (1, include_str!("schema/1.sql")),
    (2, include_str!("schema/2.sql")),
    (3, include_str!("schema/3.sql")),
    (4, include_str!("schema/4.sql")),
];

/// How far a migration has come. Where it can be killed, tests kill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The copy lies beside the file.
    Copied,
    /// Every step is taken, but not committed.
    Written,
    /// Committed, but only to the log.
    Committed,
}

/// Refuses what a newer version wrote.
pub(super) fn check_version(path: &Path, found: u32) -> Result<(), StoreError> {
    if found <= CURRENT {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} was written by a newer version: its schema is {found}, this one knows {CURRENT}; use the newer version",
        path.display()
    )))
}

/// The version of an open file; 0 for one that is empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes a new file one of ours, in one transaction. Before the switch to a write-ahead log: so the version is in the
/// main file, where the next start looks, from the first moment on.
pub(super) fn create(connection: &mut Connection, application_id: u32, now: Timestamp) -> rusqlite::Result<()> {
    take_steps(connection, 0, Some(application_id), now, &mut |_| ())
}

/// Brings a file of an earlier version to today's, in one transaction, once a copy of it lies beside it. Whatever
/// ends this early, the file is as it was.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    from: u32,
    now: Timestamp,
    reached: &mut dyn FnMut(Stage),
) -> Result<(), StoreError> {
    let copy = backup::make(connection, path, CURRENT)?;
    reached(Stage::Copied);
    take_steps(connection, from, None, now, reached).map_err(|error| failed(path, error))?;
    reached(Stage::Committed);
    // So that the header says it, for whoever looks at the main file alone. What is in the log holds without it.
    let settled = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = settled {
        tracing::debug!(%error, "could not settle the log after the migration");
    }
    tracing::info!(file = %path.display(), from, to = CURRENT, copy = %copy.display(), "the store is migrated; the copy is as it was before");
    Ok(())
}

fn take_steps(
    connection: &mut Connection,
    from: u32,
    application_id: Option<u32>,
    now: Timestamp,
    reached: &mut dyn FnMut(Stage),
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let steps = STEPS.iter().filter(|(version, _)| *version > from);
    for (_, sql) in steps.clone() {
        transaction.execute_batch(sql)?;
    }
    let by = concat!("roundsman ", env!("CARGO_PKG_VERSION"));
    for (version, _) in steps {
        let sql = "INSERT INTO schema_versions (\"version\", \"at\", \"by\") VALUES (?1, ?2, ?3)";
        transaction.execute(sql, (version, now.to_string(), by))?;
    }
    if let Some(id) = application_id {
        transaction.pragma_update(None, "application_id", id)?;
    }
    transaction.pragma_update(None, "user_version", CURRENT)?;
    reached(Stage::Written);
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use super::*;
    use crate::sqlite::file;

    /// A file that the first release wrote.
    fn old_file(dir: &Path) -> PathBuf {
        let path = dir.join("r.db");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/sqlite-0.1.db"), &path).unwrap();
        path
    }

    fn ids(path: &Path) -> (u32, Vec<String>) {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection.prepare("SELECT id FROM instances ORDER BY place").unwrap();
        let ids = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        (version(&connection).unwrap(), ids)
    }

    #[test]
    fn a_new_file_and_a_migrated_one_have_the_same_schema() {
        let dir = tempfile::tempdir().unwrap();
        let schema = |path: &Path| {
            file::open(path, Timestamp::default()).unwrap();
            let connection = Connection::open(path).unwrap();
            let mut statement = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name").unwrap();
            let tables = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
            tables.map(|sql| sql.unwrap().unwrap_or_default()).collect::<Vec<_>>()
        };
        let new = schema(&dir.path().join("new.db"));
        // Columns lie elsewhere in the text of a table that a step altered; what counts is that none is missing.
        assert_eq!(new, schema(&old_file(dir.path())));
        let steps: Vec<_> = STEPS.iter().map(|(version, _)| *version).collect();
        assert_eq!(steps, (1..=CURRENT).collect::<Vec<_>>());
    }

    #[test]
    fn each_step_is_noted_with_its_time_and_who_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = old_file(dir.path());
        file::open(&path, Timestamp::from_millis(1)).unwrap();
        let connection = Connection::open(&path).unwrap();
        let sql = "SELECT version, at, by FROM schema_versions ORDER BY version DESC";
        let noted = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let by = concat!("roundsman ", env!("CARGO_PKG_VERSION"));
        assert_eq!(noted, (CURRENT, "1970-01-01T00:00:00.001Z".to_owned(), by.to_owned()));
    }

    /// Not a test of its own: the process that the next one starts, and that kills itself at a stage.
    #[test]
    #[ignore = "started by another test"]
    #[allow(clippy::disallowed_methods, reason = "how the test tells its child what to do")]
    fn child_that_is_killed() {
        let (path, stage) = (std::env::var("KILLED_FILE").unwrap(), std::env::var("KILLED_AT").unwrap());
        let mut connection = Connection::open(&path).unwrap();
        let from = version(&connection).unwrap();
        let mut reached = |at: Stage| {
            if format!("{at:?}") == stage {
                std::process::abort();
            }
        };
        migrate(&mut connection, Path::new(&path), from, Timestamp::default(), &mut reached).unwrap();
    }

    #[test]
    fn a_process_that_is_killed_at_any_stage_leaves_a_file_that_is_whole() {
        for (stage, left) in [(Stage::Copied, 1), (Stage::Written, 1), (Stage::Committed, CURRENT)] {
            let dir = tempfile::tempdir().unwrap();
            let path = old_file(dir.path());
            let (before, everybody) = ids(&path);
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sqlite::schema::tests::child_that_is_killed", "--ignored"])
                .env("KILLED_FILE", &path)
                .env("KILLED_AT", format!("{stage:?}"))
                .output()
                .unwrap();
            assert!(!child.status.success(), "{stage:?}: the child was to be killed");
            assert_eq!((before, ids(&path)), (1, (left, everybody.clone())), "{stage:?}");
            file::open(&path, Timestamp::default()).unwrap();
            assert_eq!(ids(&path), (CURRENT, everybody.clone()), "{stage:?}: the next start goes on");
            // The file had not changed since the first copy, so one is enough.
            assert_eq!(ids(&dir.path().join(format!("r.db.before-{CURRENT}"))), (1, everybody), "{stage:?}");
            assert!(!dir.path().join(format!("r.db.before-{CURRENT}.2")).exists(), "{stage:?}");
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = old_file(dir.path());
        let everybody = ids(&path);
        // Somebody's table is in the way.
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE schema_versions (theirs)").unwrap();
        let refused = file::open(&path, Timestamp::default()).unwrap_err();
        assert!(matches!(&refused, StoreError::Unusable(why) if why.contains("schema_versions")), "{refused}");
        assert_eq!(ids(&path), everybody);
    }
}
