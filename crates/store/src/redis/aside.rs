//! Records that cannot be read: found when everything is loaded, and moved to keys of their own.

use std::collections::HashMap;

use redis::{RedisResult, Value};
use roundsman_protocol::Namespace;
use roundsman_registry::Record;

use super::{
    Shared,
    layout::{index_key, prefix, rest_of_key},
    link::PATIENCE,
};
use crate::{
    Aside, Damage, StoreError,
    stored::{COUNT, Reader},
};

/// The script, embedded.
pub(super) const SOURCE: &str = include_str!("aside.lua");

/// The index as it is, whatever is in it: id and rest of the key.
pub(super) type Index = Vec<(Vec<u8>, Vec<u8>)>;

/// A record that cannot be read, by its entry in the index.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    namespace: Namespace,
    pub(super) id: Vec<u8>,
    rest: Vec<u8>,
    /// Only the entry is wrong: what lies under the key belongs to another entry.
    entry: bool,
    reason: String,
}

/// How often each rest of a key stands in the index.
pub(super) struct References<'a>(HashMap<&'a [u8], usize>);

/// What an entry of the index leads to.
pub(super) enum Found {
    Record(Box<Record>),
    /// Nothing: it expired.
    Nothing,
    Unreadable(Unreadable),
}

// === impl References ===

impl<'a> References<'a> {
    pub(super) fn of(index: &'a Index) -> Self {
        let mut counts = HashMap::with_capacity(index.len());
        for (_, rest) in index {
            *counts.entry(rest.as_slice()).or_default() += 1;
        }
        Self(counts)
    }

    /// Reads what Redis answered for an entry.
    pub(super) fn read(
        &self,
        reader: &mut Reader,
        namespace: &Namespace,
        (id, rest): &(Vec<u8>, Vec<u8>),
        row: RedisResult<Value>,
    ) -> Found {
        let unreadable = |reason: String, entry| {
            let (id, rest) = (id.clone(), rest.clone());
            Found::Unreadable(Unreadable { namespace: namespace.clone(), id, rest, entry, reason })
        };
        let values = match row {
            Ok(Value::Array(values)) if values.iter().all(|value| *value == Value::Nil) => return Found::Nothing,
            Ok(Value::Array(values)) => values,
            Ok(_) => return unreadable("redis answered something else than fields".to_owned(), false),
            Err(error) => return unreadable(error.to_string(), false),
        };
        let record = match read_row(reader, &values) {
            Ok(record) => record,
            Err(error) => return unreadable(error.to_string(), false),
        };
        if record.instance.namespace == *namespace
            && record.instance.id.as_str().as_bytes() == id
            && rest_of_key(&record).as_bytes() == rest
        {
            return Found::Record(Box::new(record));
        }
        let shared = self.0.get(rest.as_slice()).is_some_and(|count| *count > 1);
        unreadable("its fields say that it belongs elsewhere".to_owned(), shared)
    }
}

fn read_row(reader: &mut Reader, values: &[Value]) -> Result<Record, Box<dyn std::error::Error + Send + Sync>> {
    let mut texts = [""; COUNT];
    for (text, value) in texts.iter_mut().zip(values) {
        *text = match value {
            Value::BulkString(bytes) => str::from_utf8(bytes)?,
            Value::SimpleString(text) => text,
            _ => "",
        };
    }
    Ok(reader.record(texts)?)
}

// === impl Unreadable ===

impl Unreadable {
    pub(super) fn damage(&self) -> Damage {
        let what = format!("{}{}", prefix(&self.namespace), String::from_utf8_lossy(&self.rest));
        Damage { what, reason: self.reason.clone() }
    }
}

// === impl Shared ===

impl Shared {
    /// Moves what the last load could not read.
    pub(super) async fn set_aside(&self) -> Result<Aside, StoreError> {
        let unreadable = std::mem::take(&mut *self.unreadable());
        let mut aside = Aside { place: "roundsman:{…}:damaged:*".to_owned(), ..Aside::default() };
        for record in unreadable {
            let mut connection = self.link.connection().await?;
            let mut call = self.aside.prepare_invoke();
            call.key(index_key(&record.namespace)).arg(prefix(&record.namespace)).arg(&record.id).arg(&record.rest);
            call.arg(if record.entry { "entry" } else { "record" });
            let moved = self.link.answer(PATIENCE, call.invoke_async::<String>(&mut connection)).await;
            match moved {
                Ok(_) => aside.moved += 1,
                Err(error) => aside.left = Some(error.to_string()),
            }
        }
        Ok(aside)
    }
}
