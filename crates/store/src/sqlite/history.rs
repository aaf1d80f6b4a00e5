//! The table of what happened.
//!
//! Its key is the time, in milliseconds times 1000 and more where another event has it, so that a question about time
//! is one about a range of keys. Numbers only grow, also when the clock goes back.

use roundsman_protocol::{Event, HistoryPage, HistoryQuery, Namespace, Timestamp};
use rusqlite::{Connection, Row, params_from_iter, types::Value};

use crate::{
    Keep,
    events::{self, Fields},
};

/// How many numbers a millisecond has.
const PER_MILLI: i64 = 1_000;
/// How many old events a commit drops beside as many as it adds, so that none takes long.
const STEP: i64 = 64;

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

/// Answers a question.
pub(super) fn read(
    connection: &Connection,
    namespace: &Namespace,
    query: &HistoryQuery,
) -> rusqlite::Result<HistoryPage> {
    let (mut page, most) = (HistoryPage::default(), query.most());
    let (sql, values) = question(namespace, query);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if page.events.len() == most {
            page.next = last.map(|number: i64| number.to_string().into());
            break;
        }
        last = Some(row.get(events::COUNT)?);
        match event(row)? {
            // The range of keys is only about the time; a clock that went back left others in it.
            Some(event) if query.matches(&event) => page.events.push(event),
            Some(_) => {}
            None => tracing::debug!(number = last, "left out an event that cannot be read"),
        }
    }
    Ok(page)
}

/// Two ranges, each in the order of its index: what it is about, and marks, which have empty texts.
fn question(namespace: &Namespace, query: &HistoryQuery) -> (String, Vec<Value>) {
    let before = query.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(i64::MAX);
    let since = query.since.map_or(0, number);
    let mut values = vec![Value::from(namespace.as_str().to_owned()), Value::from(since), Value::from(before)];
    let mut about = String::new();
    for (column, value) in [
        ("name", query.service.as_ref().map(|name| name.as_str())),
        ("id", query.instance.as_ref().map(|id| id.as_str())),
    ] {
        if let Some(value) = value {
            values.push(Value::from(value.to_owned()));
            about.push_str(&format!(" AND \"{column}\" = ?{}", values.len()));
        }
    }
    // A question about the whole namespace is read off the newest end; an index would have to be sorted first.
    let plus = if about.is_empty() { "+" } else { "" };
    let range = "\"number\" >= ?2 AND \"number\" < ?3";
    let select = format!("SELECT {COLUMNS}, \"number\" FROM history WHERE {range}");
    let sql = format!(
        "{select} AND {plus}\"namespace\" = ?1 AND \"kind\" <> 'cut'{about} \
         UNION ALL {select} AND \"namespace\" IN (?1, '') AND \"name\" = '' AND \"kind\" = 'cut' \
         ORDER BY \"number\" DESC"
    );
    (sql, values)
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
