//! The table of what happened.
//!
//! Its key is the time, in milliseconds times 1000 and more where another event has it, so that a question about time
//! is one about a range of keys. Numbers only grow, also when the clock goes back.

use roundsman_protocol::{Event, EventKind, HistoryPage, HistoryQuery, Namespace, Timestamp};
use rusqlite::{Connection, Row};

use crate::{
    Keep,
    events::{self, Fields},
};

/// How many numbers a millisecond has.
const PER_MILLI: i64 = 1_000;
/// How many old events a commit drops beside as many as it adds, so that none takes long.
const STEP: i64 = 64;

/// How many events one look goes through. Commits wait for it.
const LOOK: u32 = 4_096;

/// Where these stand among the columns.
const KIND: usize = 1;
const NAMESPACE: usize = 2;
const SERVICE: usize = 3;
const INSTANCE: usize = 4;

const COLUMNS: &str = "\"at\", \"kind\", \"namespace\", \"name\", \"id\", \"from\", \"to\", \"reason\", \"session\", \
                       \"address\", \"service\", \"server\"";

/// What is known of the table, so that it need not be asked each time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    count: i64,
    last: i64,
    /// Events added since the last look at the old end.
    fresh: i64,
}

// === impl Extent ===

impl Extent {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT count(*), coalesce(max(\"number\"), 0) FROM history";
        connection.query_row(sql, [], |row| Ok(Self { count: row.get(0)?, last: row.get(1)?, fresh: 0 }))
    }
}

/// Appends events, and drops as many of the oldest as are too many or too old, in small steps.
pub(super) fn append(
    connection: &Connection,
    mut extent: Extent,
    events: &[Event],
    keep: &Keep,
    now: Timestamp,
) -> rusqlite::Result<Extent> {
    for event in events {
        extent.last = number(event.at).max(extent.last + 1);
        extent.count += 1;
        extent.fresh += 1;
        insert(connection, event, extent.last)?;
    }
    if extent.fresh >= i64::try_from(keep.slack()).unwrap_or(i64::MAX) {
        trim(connection, extent, keep, now)
    } else {
        Ok(extent)
    }
}

fn insert(connection: &Connection, event: &Event, number: i64) -> rusqlite::Result<()> {
    let sql = format!("INSERT INTO history ({COLUMNS}, \"number\") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    let mut insert = connection.prepare_cached(&sql)?;
    let fields = events::fields(event);
    for (n, field) in fields.iter().enumerate() {
        insert.raw_bind_parameter(n + 1, &**field)?;
    }
    insert.raw_bind_parameter(fields.len() + 1, number)?;
    insert.raw_execute().map(drop)
}

/// Drops events that are too many or too old, not many more than came in since the last time, and leaves a mark in
/// the place of the last one.
pub(super) fn trim(
    connection: &Connection,
    mut extent: Extent,
    keep: &Keep,
    now: Timestamp,
) -> rusqlite::Result<Extent> {
    let most = i64::try_from(keep.events).unwrap_or(i64::MAX);
    let (excess, oldest) = (extent.count - most, number(keep.oldest(now)));
    let step = extent.fresh.saturating_add(STEP);
    extent.fresh = 0;
    // The mark of an earlier cut is among the oldest, and alone no reason to cut again.
    let (mut count, mut last, mut told, mut too_many) = (0, 0, false, false);
    {
        let sql = "SELECT \"number\", \"kind\" <> 'cut' FROM history ORDER BY \"number\" LIMIT ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([step])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            too_many |= count < excess;
            if count >= excess && number >= oldest {
                break;
            }
            (count, last, told) = (count + 1, number, told | row.get::<_, bool>(1)?);
        }
    }
    if !told {
        return Ok(extent);
    }
    connection.prepare_cached("DELETE FROM history WHERE \"number\" <= ?1")?.execute([last])?;
    let at = Timestamp::from_millis(u64::try_from(last / PER_MILLI).unwrap_or_default());
    insert(connection, &Event::cut(None, at, keep.reason(too_many), "".into()), last)?;
    extent.count += 1 - count;
    Ok(extent)
}

/// Answers a question, as far as one look at the table goes: `next` may stand although the page is not full. There is no
/// index but the one by time: each would cost every change more than the change itself, and a look is short.
pub(super) fn read(
    connection: &Connection,
    namespace: &Namespace,
    query: &HistoryQuery,
) -> rusqlite::Result<HistoryPage> {
    let (mut page, most) = (HistoryPage::default(), query.most());
    let before = query.after.as_deref().and_then(|after| after.parse::<u64>().ok());
    let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let since = query.since.map_or(0, number);
    let sql = format!(
        "SELECT {COLUMNS}, \"number\" FROM history WHERE \"number\" >= ?1 AND \"number\" < ?2 \
         ORDER BY \"number\" DESC LIMIT {LOOK}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([since, before])?;
    let (mut looked, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        if page.events.len() == most {
            page.next = last.map(|number: i64| number.to_string().into());
            return Ok(page);
        }
        (looked, last) = (looked + 1, Some(row.get(events::COUNT)?));
        if !is_about(row, namespace, query)? {
            continue;
        }
        match event(row)? {
            // Times may be out of order where a clock went back.
            Some(event) if query.matches(&event) => page.events.push(event),
            Some(_) => {}
            None => tracing::debug!(number = last, "left out an event that cannot be read"),
        }
    }
    if looked == LOOK {
        page.next = last.map(|number| number.to_string().into());
    }
    Ok(page)
}

/// Whether an event comes into question, by its texts: reading all of it costs more.
fn is_about(row: &Row<'_>, namespace: &Namespace, query: &HistoryQuery) -> rusqlite::Result<bool> {
    let text = |n: usize| row.get_ref(n).map(|value| value.as_bytes().unwrap_or_default());
    let (of, is_mark) = (text(NAMESPACE)?, text(KIND)? == EventKind::Cut.as_str().as_bytes());
    if of != namespace.as_str().as_bytes() && !(is_mark && of.is_empty()) {
        return Ok(false);
    }
    let service =
        query.service.as_ref().is_none_or(|name| text(SERVICE).is_ok_and(|known| known == name.as_str().as_bytes()));
    let instance =
        query.instance.as_ref().is_none_or(|id| text(INSTANCE).is_ok_and(|known| known == id.as_str().as_bytes()));
    Ok(is_mark || (service && instance))
}

fn event(row: &Row<'_>) -> rusqlite::Result<Option<Event>> {
    let mut texts: Fields<'_> = Default::default();
    for (n, text) in texts.iter_mut().enumerate() {
        let Ok(found) = row.get_ref(n)?.as_str() else { return Ok(None) };
        *text = found.into();
    }
    Ok(events::event(&texts))
}

fn number(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX / PER_MILLI).saturating_mul(PER_MILLI)
}
