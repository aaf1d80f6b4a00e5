//! Rows as they were fetched, before anything is made of them.

use std::fmt::Write;

use rusqlite::{Row, types::ValueRef};

use crate::stored::{COUNT, FIELDS, MAX_FIELD_BYTES};

/// How many bytes of text are handed over at a time, and a little more.
const FULL: usize = 128 * 1_024;

/// Rows, the texts of all in one.
#[derive(Debug, Default)]
pub(super) struct Rows {
    text: String,
    /// Where each text ends: [`COUNT`] for each row that could be fetched.
    ends: Vec<usize>,
    /// The place of each row, and why it could not be fetched.
    rows: Vec<(i64, Result<(), String>)>,
}

impl Rows {
    /// Fetches a row of [`super::table::columns`].
    pub(super) fn fetch(&mut self, place: i64, row: &Row<'_>) {
        let (text, ends) = (self.text.len(), self.ends.len());
        let fetched = self.texts(row);
        if fetched.is_err() {
            self.text.truncate(text);
            self.ends.truncate(ends);
        }
        self.rows.push((place, fetched));
    }

    fn texts(&mut self, row: &Row<'_>) -> Result<(), String> {
        for (n, field) in FIELDS.iter().enumerate() {
            match row.get_ref(n).map_err(|error| error.to_string())? {
                // Writing to a text does not fail.
                ValueRef::Integer(number) => drop(write!(self.text, "{number}")),
                other => {
                    let text = other.as_str().map_err(|error| format!("field `{field}`: {error}"))?;
                    if text.len() > MAX_FIELD_BYTES {
                        return Err(format!("field `{field}`: longer than {MAX_FIELD_BYTES} bytes"));
                    }
                    self.text.push_str(text);
                }
            }
            self.ends.push(self.text.len());
        }
        Ok(())
    }

    /// Whether there are enough of them to be handed over.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= FULL || self.rows.len() >= FULL
    }

    /// Makes room for others.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(FULL * 2);
        self.ends.clear();
        self.rows.clear();
    }

    /// Each row's place, and its texts or why it has none.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, Result<[&str; COUNT], String>)> {
        let (mut ends, mut start) = (self.ends.iter(), 0);
        self.rows.iter().map(move |(place, fetched)| {
            let texts = fetched.clone().map(|()| {
                std::array::from_fn(|_| {
                    let end = ends.next().copied().unwrap_or(start);
                    self.text.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
                })
            });
            (*place, texts)
        })
    }
}
