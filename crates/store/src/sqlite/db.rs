//! An open file: what is known of it, and the room that it keeps.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::{
    error::reserved,
    file::{Identity, Lock},
    history::Extent,
    places::Places,
    reserve::Reserve,
};
use crate::StoreError;

/// The size of a page of the database.
const PAGE: u64 = 4_096;
/// How long the log keeps its room on a full disk.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many pages the log grows to before it is settled: SQLite's default.
const MAX_LOG_PAGES: u32 = 1_000;

/// An open file.
#[derive(Debug)]
pub(super) struct Db {
    // Declared, and therefore closed, before the lock: closing any descriptor of a file ends the process's POSIX
    // locks on it, which are SQLite's.
    pub(super) connection: Connection,
    /// Where the records lie; read when it is first needed.
    pub(super) places: Option<Places>,
    /// Room for the day on which the disk is full.
    pub(super) reserve: Reserve,
    /// What [`missing`](super::table::missing) saw last, and how many records it has yet to look for since.
    pub(super) version: Option<i64>,
    pub(super) unchecked: usize,
    /// What is known of the table of events, and whether the last ones could not be written.
    pub(super) history: Option<Extent>,
    pub(super) untold: bool,
    /// How many were removed since the tombstones were looked through.
    pub(super) buried: usize,
    /// When the log's room was last tried for the reserve, or the reserve given up.
    pub(super) tried: Option<Instant>,
    pub(super) identity: Identity,
    pub(super) _lock: Lock,
}

// === impl Db ===

impl Db {
    /// Which file this is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// What is known of the table of events.
    pub(super) fn history_extent(&mut self) -> rusqlite::Result<Extent> {
        match self.history {
            Some(extent) => Ok(extent),
            None => Extent::read(&self.connection),
        }
    }

    /// Sees to it that what is written next leaves the reserve alone.
    pub(super) fn keep_reserve(&mut self) -> Result<(), StoreError> {
        if !self.reserve.is_given_up() {
            return Ok(());
        }
        self.settle("RESTART");
        if !self.reserve.make() && !self.make_reserve_of_the_log() {
            return Err(reserved());
        }
        self.limit_log();
        tracing::info!("the disk has room again, and so has the store's reserve");
        Ok(())
    }

    /// Once in a while the log's own room is tried: on a small disk it may be what is missing. In vain, somebody else may take
    /// it, so that is not done each time.
    fn make_reserve_of_the_log(&mut self) -> bool {
        let now = Instant::now();
        if now - *self.tried.get_or_insert(now) < PATIENCE {
            return false;
        }
        self.tried = Some(now);
        self.settle("TRUNCATE");
        self.reserve.make()
    }

    /// Gives the reserve's room to what must be written on a full disk.
    pub(super) fn use_reserve(&mut self) {
        if self.reserve.give_up() {
            tracing::warn!(
                "the disk is full: the store's reserve is used for removals and drains, nothing else is taken"
            );
            self.tried = Some(Instant::now());
        }
        self.settle("RESTART");
    }

    /// Looks after the reserve. The store counts as full until it is whole again.
    pub(super) fn tend_reserve(&mut self) -> Result<(), StoreError> {
        self.keep_reserve()?;
        self.reserve.tend();
        self.limit_log();
        Ok(())
    }

    /// Moves what is in the log into the file. With `RESTART` the log keeps its room for what is written next: on a full disk,
    /// somebody else would take it at once. `TRUNCATE` gives it back.
    fn settle(&self, how: &str) {
        let settled = self.connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
        if let Err(error) = settled {
            // The log stays as it is, and is settled another time.
            tracing::debug!(%error, "could not settle the log");
        }
    }

    /// The reserve must be able to take in what the log holds, or the log could never be settled on a full disk.
    pub(super) fn limit_log(&self) {
        let fitting = self.reserve.size().and_then(|size| u32::try_from(size / PAGE).ok());
        let pages = fitting.unwrap_or(MAX_LOG_PAGES).min(MAX_LOG_PAGES);
        if let Err(error) = self.connection.pragma_update(None, "wal_autocheckpoint", pages) {
            tracing::debug!(%error, "could not limit the log");
        }
    }
}
