//! The form in which backends keep an event: one text per field, as they keep a record.

use std::{borrow::Cow, sync::Arc, time::Duration};

use roundsman_protocol::{Event, InstanceStatus, Timestamp, Who};

use crate::stored::status_text;

/// How many fields an event has.
pub(crate) const COUNT: usize = 12;

/// The names of the fields: columns in SQLite, stream fields in Redis. Append only.
pub(crate) const FIELDS: [&str; COUNT] =
    ["at", "kind", "namespace", "name", "id", "from", "to", "reason", "session", "address", "service", "server"];

/// The values, in the order of [`FIELDS`]. What is absent is empty.
pub(crate) type Fields<'a> = [Cow<'a, str>; COUNT];

/// How much history a store keeps. What is older, or more, is dropped from the old end on, and a mark of
/// [`roundsman_protocol::EventKind::Cut`] stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Most events, and a few that are about to be dropped. SQLite counts all namespaces together, Redis each by itself;
    /// the store in memory keeps a tenth of it.
    pub events: u64,
    /// For how long.
    pub age: Duration,
}

// === impl Keep ===

impl Default for Keep {
    fn default() -> Self {
        Self { events: 100_000, age: Duration::from_secs(7 * 24 * 3_600) }
    }
}

impl Keep {
    /// How many may be too many before any is dropped, so that not every commit has to.
    pub(crate) fn slack(&self) -> u64 {
        (self.events / 8).clamp(1, 64)
    }

    /// The oldest moment that is remembered.
    pub(crate) fn oldest(&self, now: Timestamp) -> Timestamp {
        let age = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(age))
    }

    /// What a mark says.
    pub(crate) fn reason(&self, too_many: bool) -> Arc<str> {
        if too_many {
            return format!("older events were dropped: {} are kept", self.events).into();
        }
        format!("older events were dropped: they are kept for {}", roundsman_protocol::time::display(self.age)).into()
    }
}

fn text(text: Option<&str>) -> Cow<'_, str> {
    Cow::Borrowed(text.unwrap_or_default())
}

/// An event as text.
pub(crate) fn fields(event: &Event) -> Fields<'_> {
    let status = |status: Option<InstanceStatus>| Cow::Borrowed(status.map_or("", status_text));
    let who = event.who.as_ref();
    [
        event.at.to_string().into(),
        event.kind.as_str().into(),
        text(event.namespace.as_ref().map(|namespace| namespace.as_str())),
        text(event.service.as_ref().map(|service| service.as_str())),
        text(event.instance.as_ref().map(|instance| instance.as_str())),
        status(event.from),
        status(event.to),
        Cow::Borrowed(&event.reason),
        text(who.and_then(|who| who.session.as_deref())),
        text(who.and_then(|who| who.address.as_deref())),
        text(who.and_then(|who| who.service.as_deref())),
        Cow::Borrowed(&event.server),
    ]
}

/// An event out of its texts; `None` when they are not ours.
pub(crate) fn event(fields: &Fields<'_>) -> Option<Event> {
    let [at, kind, namespace, service, instance, from, to, reason, session, address, caller, server] = fields;
    let who = Who { session: shared(session), address: shared(address), service: shared(caller) };
    Some(Event {
        namespace: optional(namespace)?,
        service: optional(service)?,
        instance: optional(instance)?,
        at: at.parse().ok()?,
        kind: kind.parse().ok()?,
        from: status(from)?,
        to: status(to)?,
        reason: Arc::from(&**reason),
        who: Some(who).filter(|who| *who != Who::default()),
        server: Arc::from(&**server),
    })
}

fn shared(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// `None` when there is a text and it is none of these.
fn optional<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

fn status(text: &str) -> Option<Option<InstanceStatus>> {
    use InstanceStatus::{Draining, Evicted, Passing, Starting, Suspect};
    if text.is_empty() {
        return Some(None);
    }
    [Starting, Passing, Suspect, Evicted, Draining].into_iter().find(|status| status_text(*status) == text).map(Some)
}
