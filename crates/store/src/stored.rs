//! The form in which backends keep a record: one text per field, so that a person with redis-cli or sqlite3 reads
//! it, and fields can be added without breaking what is stored.

use std::{borrow::Cow, time::Duration};

use roundsman_protocol::{InstanceStatus, Timestamp};
use roundsman_registry::{Health, Record};
use serde::Serialize;

mod reader;

pub(crate) use reader::Reader;

/// How many fields a record has.
pub(crate) const COUNT: usize = 18;

/// The names of the fields: columns in SQLite, hash and stream fields in Redis. Append only.
///
/// `health` is the path that is visited and `status` is what people see; both are written for readers only, the
/// record is restored from `check`, `observed` and `draining`.
pub(crate) const FIELDS: [&str; COUNT] = [
    "name",
    "address",
    "health",
    "id",
    "namespace",
    "status",
    "reason",
    "since",
    "registered_at",
    "check",
    "tags",
    "meta",
    "zone",
    "version",
    "weight",
    "draining",
    "observed",
    "history",
];

/// The values of a record's fields, in the order of [`FIELDS`]. What is absent is empty.
pub(crate) type Values<'a> = [Cow<'a, str>; COUNT];

/// A record as text.
pub(crate) fn values(record: &Record) -> Values<'_> {
    let instance = &*record.instance;
    [
        Cow::Borrowed(instance.name.as_str()),
        Cow::Owned(instance.address.to_string()),
        Cow::Borrowed(instance.check.path().unwrap_or_default()),
        Cow::Borrowed(instance.id.as_str()),
        Cow::Borrowed(instance.namespace.as_str()),
        Cow::Borrowed(status_text(instance.status)),
        Cow::Borrowed(&instance.reason),
        Cow::Owned(instance.since.to_string()),
        Cow::Owned(instance.registered_at.to_string()),
        json(&instance.check),
        if instance.tags.is_empty() { Cow::Borrowed("[]") } else { json(&instance.tags) },
        if instance.meta.is_empty() { Cow::Borrowed("{}") } else { json(&instance.meta) },
        Cow::Borrowed(instance.zone.as_deref().unwrap_or_default()),
        Cow::Borrowed(instance.version.as_deref().unwrap_or_default()),
        Cow::Owned(instance.weight.to_string()),
        Cow::Borrowed(if record.draining { "true" } else { "false" }),
        Cow::Borrowed(observed_text(record.health)),
        json(&*record.history),
    ]
}

fn json<T: Serialize + ?Sized>(value: &T) -> Cow<'static, str> {
    // Types without maps of odd keys and without failing serializers cannot fail; reading the empty text would.
    Cow::Owned(serde_json::to_string(value).unwrap_or_default())
}

pub(crate) fn status_text(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Starting => "starting",
        InstanceStatus::Passing => "passing",
        InstanceStatus::Suspect => "suspect",
        InstanceStatus::Evicted => "evicted",
        InstanceStatus::Draining => "draining",
    }
}

fn observed_text(health: Health) -> &'static str {
    match health {
        Health::Starting => "starting",
        Health::Passing => "passing",
        Health::Suspect => "suspect",
        Health::Evicted => "evicted",
    }
}

/// When the probation of an evicted record is over; `None` for one that is live.
pub(crate) fn evicted_until(record: &Record, retention: Duration) -> Option<Timestamp> {
    (record.health == Health::Evicted).then(|| record.instance.since.plus(retention))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{Check, Registration};
    use roundsman_registry::Key;

    fn record() -> Record {
        let registration = Registration {
            check: Check { interval: Some(Duration::from_secs(5)), ..Check::http("/alive") },
            tags: vec!["a".into(), "\"ü\"".into()],
            meta: [("k", "v\n"), ("ключ", "значение")].into_iter().collect(),
            zone: Some("eu".into()),
            weight: 7,
            ..Registration::new("product".parse().unwrap(), "[::1]:7070".parse().unwrap())
        };
        let key = Key { namespace: "shop".parse().unwrap(), id: "product-1".parse().unwrap() };
        Record::registered(&key, &registration, 0, Timestamp::from_millis(1_700_000_000_123))
    }

    #[test]
    fn records_come_back_as_they_went() {
        let live = record();
        let drained = live.flipped(Health::Suspect, true, "drained by request".into(), Timestamp::from_millis(2));
        let evicted = drained.flipped(Health::Evicted, true, "no answer in 1s".into(), Timestamp::from_millis(3));
        let mut reader = Reader::default();
        for record in [live, drained, evicted] {
            let values = values(&record);
            let read = reader.record(std::array::from_fn(|n| &*values[n])).unwrap();
            assert_eq!(read, record);
            assert_eq!(read.incarnation, 0);
        }
    }

    #[test]
    fn people_find_path_and_status_by_name() {
        let record = record().flipped(Health::Passing, true, "".into(), Timestamp::from_millis(2));
        let values = values(&record);
        let field = |name: &str| &*values[FIELDS.iter().position(|field| *field == name).unwrap()];
        assert_eq!((field("health"), field("status"), field("observed")), ("/alive", "draining", "passing"));
        assert_eq!((field("zone"), field("version"), field("weight")), ("eu", "", "7"));
    }

    #[test]
    fn every_field_that_is_read_names_itself_when_it_is_damaged() {
        let record = record();
        let values = values(&record);
        for (n, field) in FIELDS.iter().enumerate() {
            let damaged = std::array::from_fn(|m| if m == n { "\u{1}" } else { &*values[m] });
            match Reader::default().record(damaged) {
                Ok(_) => assert!(["health", "status", "reason", "zone", "version"].contains(field), "{field}"),
                Err(error) => assert!(error.to_string().contains(field), "{error}"),
            }
        }
    }
}
