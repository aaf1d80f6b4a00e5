//! The form in which backends keep a record: one text per field, so that a person with redis-cli or sqlite3 reads
//! it, and fields can be added without breaking what is stored.

use std::{borrow::Cow, time::Duration};

use roundsman_protocol::{InstanceStatus, Timestamp, time};
use roundsman_registry::{Health, Part, Record};
use serde::Serialize;

mod reader;

pub(crate) use reader::{MAX_FIELD_BYTES, Reader};

/// How many fields a record has.
pub(crate) const COUNT: usize = 26;

/// The names of the fields: columns in SQLite, hash and stream fields in Redis. Append only.
///
/// `health` is the path that is visited, and `status` and `reason` are what people see; all three are written for
/// readers only, the record is restored from `check`, `observed`, `evidence` and `draining`.
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
    "asked",
    "incarnation",
    "evidence",
    "observed_since",
    "observed_by",
    "forget_after",
    "held",
    "blocked",
];

/// Who writes each field, in the order of [`FIELDS`].
pub(crate) const OWNERS: [Owner; COUNT] = {
    use Owner::{Asked as A, Both as B, Observed as O};
    [A, A, A, A, A, B, B, B, A, A, A, A, A, A, A, A, O, B, A, A, O, O, O, A, A, A]
};

/// Whose business a field is. Neither writes what is the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whoever asks: an owner, an operator.
    Asked,
    /// The rounds.
    Observed,
    /// What follows from both.
    Both,
}

// === impl Owner ===

impl Owner {
    /// Whether its fields are written with a part of a record.
    pub(crate) fn writes(self, part: Part) -> bool {
        match part {
            Part::All => true,
            Part::Asked => self != Self::Observed,
            Part::Updated => self == Self::Asked,
            Part::Observed => self != Self::Asked,
        }
    }
}

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
        Cow::Borrowed(if record.asked.draining { "true" } else { "false" }),
        Cow::Borrowed(observed_text(record.observed.health)),
        json(&*record.history),
        Cow::Owned(record.asked.version.to_string()),
        Cow::Owned(record.asked.incarnation.to_string()),
        Cow::Borrowed(&record.observed.reason),
        Cow::Owned(record.observed.since.to_string()),
        Cow::Borrowed(&record.observed.by),
        record.forget_after().map_or(Cow::Borrowed(""), |after| Cow::Owned(time::display(after))),
        Cow::Borrowed(if record.asked.held { "true" } else { "" }),
        record.asked.blocked.map_or(Cow::Borrowed(""), |until| Cow::Owned(until.to_string())),
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

/// When the probation of an evicted record is over; `None` for one that is live, and for one that servers forget.
pub(crate) fn evicted_until(record: &Record, retention: Duration) -> Option<Timestamp> {
    record.expires_by_itself().then(|| record.observed.since.plus(retention))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{Check, Registration};
    use roundsman_registry::{Asked, Key};

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
        Record::registered(&key, &registration, 7, Timestamp::from_millis(1_700_000_000_123))
    }

    #[test]
    fn records_come_back_as_they_went() {
        let live = record();
        let suspect = live.seen(Health::Suspect, "503".into(), "server-1".into(), Timestamp::from_millis(2));
        let drained = suspect.drained(true, 8, Timestamp::from_millis(2));
        let evicted = drained.seen(Health::Evicted, "no answer in 1s".into(), "".into(), Timestamp::from_millis(3));
        let held = live.held(9, Timestamp::from_millis(4));
        let blocked = held.blocked(Timestamp::from_millis(3_600_000), "order", 10, Timestamp::from_millis(5));
        let patient = Registration {
            forget_after: Some(Duration::from_secs(72 * 3_600)),
            ..Registration::new("product".parse().unwrap(), "[::1]:7070".parse().unwrap())
        };
        let patient = evicted.updated(&patient, 11);
        let mut reader = Reader::default();
        for record in [live, drained, evicted, held, blocked, patient] {
            let values = values(&record);
            let read = reader.record(std::array::from_fn(|n| &*values[n])).unwrap();
            assert_eq!(read, record);
        }
    }

    #[test]
    fn what_an_earlier_release_wrote_gets_a_version() {
        let record = record().seen(Health::Passing, "200".into(), "s".into(), Timestamp::from_millis(2));
        let values = values(&record);
        let old = |n: usize| if n < 18 { &*values[n] } else { "" };
        let read = Reader::default().record(std::array::from_fn(old)).unwrap();
        let expected = Asked { version: 1_700_000_000_123, incarnation: 1_700_000_000_123, ..Asked::default() };
        assert_eq!((read.asked, &*read.observed.by), (expected, ""));
        assert_eq!((&read.observed.reason, read.observed.since), (&record.observed.reason, record.observed.since));
    }

    #[test]
    fn what_is_asked_for_and_what_is_observed_share_no_field_from_which_a_record_is_restored() {
        for (field, owner) in FIELDS.iter().zip(OWNERS) {
            let shown = ["status", "reason", "since", "history"].contains(field);
            assert_eq!(owner == Owner::Both, shown, "{field}");
        }
    }

    #[test]
    fn people_find_path_and_status_by_name() {
        let passing = record().seen(Health::Passing, "".into(), "".into(), Timestamp::from_millis(2));
        let record = passing.drained(true, 8, Timestamp::from_millis(2));
        let values = values(&record);
        let field = |name: &str| &*values[FIELDS.iter().position(|field| *field == name).unwrap()];
        assert_eq!((field("health"), field("status"), field("observed")), ("/alive", "draining", "passing"));
        assert_eq!((field("zone"), field("version"), field("weight")), ("eu", "", "7"));
    }

    /// Any text will do.
    const PEOPLES: [&str; 7] = ["health", "status", "reason", "zone", "version", "evidence", "observed_by"];

    #[test]
    fn every_field_that_is_read_names_itself_when_it_is_damaged() {
        let record = record();
        let values = values(&record);
        for (n, field) in FIELDS.iter().enumerate() {
            let damaged = std::array::from_fn(|m| if m == n { "\u{1}" } else { &*values[m] });
            match Reader::default().record(damaged) {
                Ok(_) => assert!(PEOPLES.contains(field), "{field}"),
                Err(error) => assert!(error.to_string().contains(field), "{error}"),
            }
        }
    }
}
