//! What happened to whom: events, how they are asked for, and the answer.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    error::Invalid,
    instance::InstanceStatus,
    name::{InstanceId, Namespace, ServiceName},
    time::Timestamp,
};

/// Most events of one answer. A query that asks for more gets so many, and a bookmark.
pub const MAX_EVENTS: u32 = 1_000;

/// One thing that happened. Append only, like all that is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// In which namespace. `None` only for a [`EventKind::Cut`] that is about all of them.
    pub namespace: Option<Namespace>,
    /// The service; `None` for a cut.
    pub service: Option<ServiceName>,
    /// The instance; `None` for a cut.
    pub instance: Option<InstanceId>,
    /// When, by the clock of the server that saw it.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// The status before, where it changed.
    pub from: Option<InstanceStatus>,
    /// The status after, where it changed.
    pub to: Option<InstanceStatus>,
    /// Why, or by which evidence.
    pub reason: Arc<str>,
    /// Who asked for it; `None` when nobody did, or it is not known.
    pub who: Option<Who>,
    /// The server that took it in, or saw it.
    pub server: Arc<str>,
}

/// The kinds of event. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Somebody registered, for the first time or anew.
    Registered,
    /// An instance said something else of itself.
    Updated,
    /// Its status changed, in another way than the kinds below.
    Flip,
    /// It failed its visits and is out.
    Evicted,
    /// It came back from probation.
    Reinstated,
    /// Its owner or an operator asked that it be no longer handed out.
    Drained,
    /// That was taken back.
    Undrained,
    /// It left.
    Deregistered,
    /// Another instance took its address.
    Replaced,
    /// Its probation was over.
    Forgotten,
    /// Events are missing here: they were dropped, and `reason` says why.
    Cut,
}

/// Who asked for something: as much of it as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// The connection or the request, as the server's log calls it.
    pub session: Option<Arc<str>>,
    /// From where.
    pub address: Option<Arc<str>>,
    /// The service that it said it is.
    pub service: Option<Arc<str>>,
}

/// A question about what happened in a namespace. The empty one means everything, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only of this instance.
    pub instance: Option<InstanceId>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Not after this moment.
    pub until: Option<Timestamp>,
    /// At most so many; 0 and more than [`MAX_EVENTS`] mean that.
    pub limit: u32,
    /// Where an earlier answer ended: [`HistoryPage::next`].
    pub after: Option<Box<str>>,
}

/// What a question about the past is answered, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where to go on, if there may be more. Opaque.
    pub next: Option<Box<str>>,
}

// === impl Event ===

impl Event {
    /// A mark that events are missing, in one namespace or in all.
    #[must_use]
    pub fn cut(namespace: Option<Namespace>, at: Timestamp, reason: Arc<str>, server: Arc<str>) -> Self {
        let kind = EventKind::Cut;
        Self { namespace, service: None, instance: None, at, kind, from: None, to: None, reason, who: None, server }
    }
}

// === impl EventKind ===

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Registered,
        Self::Updated,
        Self::Flip,
        Self::Evicted,
        Self::Reinstated,
        Self::Drained,
        Self::Undrained,
        Self::Deregistered,
        Self::Replaced,
        Self::Forgotten,
        Self::Cut,
    ];

    /// The word for it, as JSON and stores have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Updated => "updated",
            Self::Flip => "flip",
            Self::Evicted => "evicted",
            Self::Reinstated => "reinstated",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
            Self::Deregistered => "deregistered",
            Self::Replaced => "replaced",
            Self::Forgotten => "forgotten",
            Self::Cut => "cut",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for EventKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| Invalid::new("kind", format!("there is no kind of event called `{text}`")))
    }
}

// === impl HistoryQuery ===

impl HistoryQuery {
    /// How many events an answer has at most.
    #[must_use]
    pub fn most(&self) -> usize {
        let limit = if self.limit == 0 { MAX_EVENTS } else { self.limit.min(MAX_EVENTS) };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Whether an event is what it asks for, wherever it ended before. A cut is part of every answer that it falls into.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let about = event.kind == EventKind::Cut
            || self.service.as_ref().is_none_or(|service| event.service.as_ref() == Some(service))
                && self.instance.as_ref().is_none_or(|instance| event.instance.as_ref() == Some(instance));
        about && self.since.is_none_or(|since| event.at >= since) && self.until.is_none_or(|until| event.at <= until)
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.after.as_ref().is_some_and(|after| !is_bookmark(after)) {
            return Err(Invalid::new("after", "is no bookmark: use the `next` of an earlier answer as it is"));
        }
        match (self.since, self.until) {
            (Some(since), Some(until)) if since > until => {
                Err(Invalid::new("since", format!("{since} is later than `until`, {until}")))
            }
            _ => Ok(()),
        }
    }
}

/// Whether it may be the bookmark of a store: a number, or two with a dash between them.
fn is_bookmark(text: &str) -> bool {
    let (first, second) = text.split_once('-').unwrap_or((text, "0"));
    [first, second]
        .iter()
        .all(|number| number.bytes().all(|digit| digit.is_ascii_digit()) && number.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        let who = Who { address: Some("10.0.0.9:4711".into()), ..Who::default() };
        Event {
            namespace: Some("shop".parse().unwrap()),
            service: Some("product".parse().unwrap()),
            instance: Some("product-1".parse().unwrap()),
            at: Timestamp::from_millis(1_795_225_800_123),
            kind,
            from: Some(InstanceStatus::Passing),
            to: Some(InstanceStatus::Evicted),
            reason: "GET /health: 503".into(),
            who: Some(who),
            server: "roundsman-1".into(),
        }
    }

    #[test]
    fn events_survive_both_codecs_and_their_kinds_are_words() {
        for kind in EventKind::ALL {
            let event = event(kind);
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.contains(&format!("\"kind\":\"{kind}\"")), "{json}");
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
            let bytes = postcard::to_allocvec(&event).unwrap();
            assert_eq!(postcard::from_bytes::<Event>(&bytes).unwrap(), event);
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let refused = "shot".parse::<EventKind>().unwrap_err();
        assert!(refused.rule.contains("`shot`"), "{refused}");
    }

    #[test]
    fn kinds_keep_their_numbers() {
        let numbers = EventKind::ALL.map(|kind| postcard::to_allocvec(&kind).unwrap()[0]);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_query_is_short_and_says_what_it_is_about() {
        let all: HistoryQuery = serde_json::from_str("{}").unwrap();
        assert_eq!((all.most(), all.matches(&event(EventKind::Flip))), (1_000, true));
        let other = HistoryQuery { service: Some("order".parse().unwrap()), ..HistoryQuery::default() };
        assert!(!other.matches(&event(EventKind::Flip)));
        assert!(other.matches(&Event::cut(None, Timestamp::default(), "".into(), "".into())));
        let (early, late) = (Timestamp::from_millis(1), Timestamp::MAX);
        let past = HistoryQuery { until: Some(early), ..HistoryQuery::default() };
        let future = HistoryQuery { since: Some(late), ..HistoryQuery::default() };
        assert!(!past.matches(&event(EventKind::Flip)) && !future.matches(&event(EventKind::Flip)));
        let backwards = HistoryQuery { since: Some(late), until: Some(early), ..HistoryQuery::default() };
        assert_eq!(backwards.validate().unwrap_err().field, "since");
        let after = |text: &str| HistoryQuery { after: Some(text.into()), ..HistoryQuery::default() };
        for no_bookmark in ["", "zz", "-", "1-", "-1", "+1", "1-2-3", "18446744073709551616", &*"1".repeat(65)] {
            assert_eq!(after(no_bookmark).validate().unwrap_err().field, "after", "{no_bookmark}");
        }
        for bookmark in ["0", "18446744073709551615", "1795310437690-3"] {
            assert_eq!(after(bookmark).validate(), Ok(()), "{bookmark}");
        }
    }
}
