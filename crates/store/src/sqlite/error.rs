//! What SQLite's errors mean to the one who has to act on them.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::StoreError;

const FULL: &str = "the disk is full";
const IO_ERROR: &str = "the disk reports an I/O error";

/// Sorts an error: try again later, or call an operator.
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => return full(error),
        // No room for the few kilobytes through which processes share the log's index.
        Some(_) if extended_code(&error) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => return full(error),
        Some(ErrorCode::SystemIoFailure) => IO_ERROR,
        Some(ErrorCode::ReadOnly) => "the file is read-only",
        Some(ErrorCode::CannotOpen) => "the file cannot be opened",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "the file is locked by another program",
        Some(ErrorCode::OutOfMemory) => "out of memory",
        Some(ErrorCode::DatabaseCorrupt) => return damaged(path, &error),
        Some(ErrorCode::NotADatabase) => return not_sqlite(path),
        _ => return StoreError::Unusable(format!("{}: {error}", path.display())),
    };
    StoreError::unavailable(reason, error)
}

fn full(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Full { reason: FULL.to_owned(), source: Some(error.into()) }
}

/// The disk is full, and what room there is belongs to removals.
pub(super) fn reserved() -> StoreError {
    StoreError::Full { reason: FULL.to_owned(), source: None }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Whether the connection is better opened anew after this error.
pub(super) fn needs_reopening(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { reason, .. } if reason == IO_ERROR)
}

/// The file was ours and can no longer be read.
pub(super) fn damaged(path: &Path, what: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "{} is damaged ({what}); nothing was changed in it: restore a copy, or move it away to begin with an empty store",
        path.display()
    ))
}

/// The file is something else altogether.
pub(super) fn not_sqlite(path: &Path) -> StoreError {
    StoreError::Unusable(format!(
        "{} is not a Roundsman store: it is no SQLite file; name another file",
        path.display()
    ))
}

/// The operating system refused to open or read the file.
pub(super) fn io_failed(path: &Path, error: std::io::Error) -> StoreError {
    use std::io::ErrorKind;
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(error),
        ErrorKind::ReadOnlyFilesystem => StoreError::unavailable("the file system is read-only", error),
        ErrorKind::PermissionDenied => StoreError::Unusable(format!("no permission to open {path}")),
        ErrorKind::NotADirectory => StoreError::Unusable(format!("{path} leads through something that is no folder")),
        _ => StoreError::unavailable(&format!("{path}: {error}"), error),
    }
}
