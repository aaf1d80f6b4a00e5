//! The statements that carry out a batch, change by change, by the rules of [`Change::ruling`].

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use roundsman_protocol::Timestamp;
use roundsman_registry::{Asked, Change, Key, Known, Part, Record, Ruling, Tombstone};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::{places::Plan, table};
use crate::{
    Standing,
    stored::{COUNT, FIELDS, OWNERS, evicted_until, values},
};

/// The statements that carry a batch out.
pub(super) struct Statements<'c> {
    put: CachedStatement<'c>,
    asked: CachedStatement<'c>,
    updated: CachedStatement<'c>,
    row: CachedStatement<'c>,
    observed: CachedStatement<'c>,
    until: CachedStatement<'c>,
    look: CachedStatement<'c>,
    remove: CachedStatement<'c>,
    gone: CachedStatement<'c>,
    bury: CachedStatement<'c>,
}

/// The texts of the longer ones, put together once.
struct Texts {
    put: String,
    asked: String,
    updated: String,
    row: String,
    observed: String,
}

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let (columns, marks) = (table::columns(), vec!["?"; COUNT + 2].join(", "));
    Texts {
        put: format!("INSERT OR REPLACE INTO instances ({columns}, \"evicted_until\", \"place\") VALUES ({marks})"),
        asked: update(Part::Asked, ""),
        updated: update(Part::Updated, ""),
        row: format!("SELECT {columns} FROM instances WHERE \"place\" = ?1"),
        observed: update(Part::Observed, ", \"evicted_until\" = ?"),
    }
});

// === impl Statements ===

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let look = "SELECT \"asked\", \"incarnation\", \"registered_at\", \"draining\", \"observed\" FROM instances WHERE \"place\" = ?1";
        let until = "UPDATE instances SET \"evicted_until\" = ?1 WHERE \"place\" = ?2 AND \"observed\" = 'evicted'";
        let gone = "SELECT \"version\" FROM removed WHERE \"namespace\" = ?1 AND \"id\" = ?2";
        Ok(Self {
            put: connection.prepare_cached(&TEXTS.put)?,
            asked: connection.prepare_cached(&TEXTS.asked)?,
            updated: connection.prepare_cached(&TEXTS.updated)?,
            row: connection.prepare_cached(&TEXTS.row)?,
            observed: connection.prepare_cached(&TEXTS.observed)?,
            until: connection.prepare_cached(until)?,
            look: connection.prepare_cached(look)?,
            remove: connection.prepare_cached("DELETE FROM instances WHERE \"place\" = ?1")?,
            gone: connection.prepare_cached(gone)?,
            bury: connection.prepare_cached("INSERT OR REPLACE INTO removed VALUES (?1, ?2, ?3)")?,
        })
    }

    pub(super) fn carry_out(
        &mut self,
        change: &Change,
        plan: &mut Plan<'_>,
        retention: Duration,
    ) -> rusqlite::Result<Ruling> {
        let key = change.key();
        let known = self.known(plan.find(&key))?;
        // Where there is a record, no tombstone is later than it.
        let gone = if known.is_some() { 0 } else { self.gone(&key)? };
        let same = match (change, known) {
            (Change::Asked { record, .. }, Some(known)) if known.asked.version == record.asked.version => {
                let found = plan.find(&key).map_or(Ok(None), |place| self.read(place))?;
                found.is_some_and(|found| found.asks_the_same(record))
            }
            _ => false,
        };
        let ruling = change.ruling(known, gone, || same);
        match ruling {
            Ruling::Put(part) => self.write(change.record(), part, plan.put(key), retention)?,
            Ruling::Bury(version) => self.bury(&Tombstone { key, version }, plan)?,
            Ruling::Leave | Ruling::Conflict => {}
        }
        Ok(ruling)
    }

    /// How a record stands that a request was not planned on.
    pub(super) fn standing(&mut self, key: Key, place: Option<i64>) -> rusqlite::Result<Standing> {
        let record = match place {
            Some(place) => self.read(place)?,
            None => None,
        };
        let gone = self.gone(&key)?;
        Ok(Standing::of(key, record.map(Arc::new), gone))
    }

    /// Takes out a record, unless its owner asked for something later.
    pub(super) fn bury(&mut self, tombstone: &Tombstone, plan: &mut Plan<'_>) -> rusqlite::Result<()> {
        let Tombstone { key, version } = tombstone;
        if self.known(plan.find(key))?.is_some_and(|known| known.asked.version > *version) {
            return Ok(());
        }
        if let Some(place) = plan.remove(key.clone()) {
            self.remove.execute([place])?;
        }
        let version = i64::try_from(*version).unwrap_or(i64::MAX);
        self.bury.execute((key.namespace.as_str(), key.id.as_str(), version)).map(drop)
    }

    fn known(&mut self, place: Option<i64>) -> rusqlite::Result<Option<Known>> {
        let Some(place) = place else { return Ok(None) };
        self.look.query_row([place], known).optional()
    }

    /// The record at a place, if it can be read.
    fn read(&mut self, place: i64) -> rusqlite::Result<Option<Record>> {
        let read = |row: &Row<'_>| Ok(table::read(row).ok());
        self.row.query_row([place], read).optional().map(Option::flatten)
    }

    fn gone(&mut self, key: &Key) -> rusqlite::Result<u64> {
        let found = self.gone.query_row((key.namespace.as_str(), key.id.as_str()), |row| row.get::<_, i64>(0));
        // A version that nobody can have given guards nothing.
        let believed = |version: i64| u64::try_from(version).ok().filter(|version| *version <= Asked::LATEST);
        Ok(found.optional()?.and_then(believed).unwrap_or_default())
    }

    fn write(&mut self, record: &Record, part: Part, place: i64, retention: Duration) -> rusqlite::Result<()> {
        let until = evicted_until(record, retention).map(|until| until.to_string());
        let statement = match part {
            Part::All => &mut self.put,
            Part::Asked => &mut self.asked,
            Part::Updated => &mut self.updated,
            Part::Observed => &mut self.observed,
        };
        let mut at = 0;
        for (text, _) in values(record).into_iter().zip(OWNERS).filter(|(_, owner)| owner.writes(part)) {
            at += 1;
            statement.raw_bind_parameter(at, text)?;
        }
        if matches!(part, Part::All | Part::Observed) {
            at += 1;
            statement.raw_bind_parameter(at, &until)?;
        }
        statement.raw_bind_parameter(at + 1, place)?;
        statement.raw_execute()?;
        // It may be remembered for another time from now on.
        if record.is_evicted() && matches!(part, Part::Asked | Part::Updated) {
            self.until.execute((until, place))?;
        }
        Ok(())
    }
}

/// Writes the fields of one part.
fn update(part: Part, more: &str) -> String {
    let fields = FIELDS.iter().zip(OWNERS).filter(|(_, owner)| owner.writes(part));
    let set: Vec<_> = fields.map(|(field, _)| format!("\"{field}\" = ?")).collect();
    format!("UPDATE instances SET {}{more} WHERE \"place\" = ?", set.join(", "))
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let version = |n| row.get::<_, i64>(n).map(|version| u64::try_from(version).unwrap_or_default());
    let (mut version, mut incarnation) = (version(0)?, version(1)?);
    if version == 0 {
        // An earlier release wrote none, and the reader takes the same for it.
        let registered_at = row.get_ref(2)?.as_str().ok().and_then(|text| text.parse::<Timestamp>().ok());
        version = registered_at.map_or(0, Timestamp::as_millis);
        incarnation = version;
    }
    let is = |n: usize, text: &str| row.get_ref(n).is_ok_and(|found| found.as_str().is_ok_and(|found| found == text));
    Ok(Known {
        asked: Asked { version, incarnation, draining: is(3, "true"), ..Asked::default() },
        evicted: is(4, "evicted"),
    })
}
