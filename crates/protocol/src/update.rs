//! The answers to lists and watches, page by page.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    bounded,
    digest::Digest,
    error::Invalid,
    instance::{Instance, InstanceStatus},
    limits,
    name::{InstanceId, ServiceName, quoted},
};

/// A point in one server's history of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// New at each start of a server; below 2^53, so that every JSON library keeps it exactly.
    pub epoch: u64,
    /// Counts the server's changes of the namespace.
    pub revision: u64,
}

/// What a list answers: all that the query matches, or as much of it as fits on a page.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// The moment of the first page. Zeroes from a server that speaks version 1 or 2, which does not tell it.
    pub cursor: Cursor,
    /// The instances on this page.
    pub instances: Vec<Arc<Instance>>,
    /// Where the next page begins; the last one has none.
    #[serde(default)]
    pub next: Option<Bookmark>,
}

/// What a watch answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Update {
    /// Where to go on from.
    pub cursor: Cursor,
    /// Whether `instances` is everything that the query matches, to replace what the watcher knew,
    /// or only what changed.
    pub snapshot: bool,
    /// The instances in their state at the cursor.
    pub instances: Vec<Arc<Instance>>,
    /// Those that no longer match; always empty in a snapshot.
    pub removed: Vec<Removed>,
    /// The parts of the watcher's digest that differ, when only they do: of these, `instances` over all pages is
    /// everything, and of the other parts nothing has changed. Empty when the digest played no role.
    #[serde(default)]
    pub parts: Vec<u8>,
    /// Where the next page begins; the last one has none. What changes meanwhile is told from `cursor` on.
    #[serde(default)]
    pub next: Option<Bookmark>,
}

/// An instance that a query no longer matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its id.
    pub id: InstanceId,
    /// Its service.
    pub name: ServiceName,
    /// Its status now, when it is still registered or on probation.
    pub status: Option<InstanceStatus>,
    /// Why.
    pub reason: Arc<str>,
}

/// Where a page begins: a text that only the server that wrote it understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bookmark(Box<str>);

/// What a watcher still knows when it comes back to a server that does not know its cursor. Append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// The digest of all that matched. Who knows the same is told so; otherwise only what differs is sent.
    Digest(Digest),
    /// The ids of all that matched, for those who follow a subset: they can keep those that they have.
    Ids(#[serde(deserialize_with = "bounded::ids")] Vec<InstanceId>),
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.revision)
    }
}

// === impl Page ===

impl Serialize for Page {
    /// In JSON, the last page has no `next`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let next = self.next.is_some() || !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Page", 2 + usize::from(next))?;
        fields.serialize_field("cursor", &self.cursor)?;
        fields.serialize_field("instances", &self.instances)?;
        if next {
            fields.serialize_field("next", &self.next)?;
        }
        fields.end()
    }
}

// === impl Update ===

impl Update {
    /// The answer "nothing changed since then".
    #[must_use]
    pub fn unchanged(cursor: Cursor) -> Self {
        Self { cursor, snapshot: false, instances: vec![], removed: vec![], parts: vec![], next: None }
    }

    /// Whether there is anything to act on.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        !self.snapshot && self.instances.is_empty() && self.removed.is_empty() && self.parts.is_empty()
    }
}

impl Serialize for Update {
    /// In JSON, what only some answers have is left out of the others.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = !serializer.is_human_readable();
        let (parts, next) = (all || !self.parts.is_empty(), all || self.next.is_some());
        let mut fields = serializer.serialize_struct("Update", 4 + usize::from(parts) + usize::from(next))?;
        fields.serialize_field("cursor", &self.cursor)?;
        fields.serialize_field("snapshot", &self.snapshot)?;
        fields.serialize_field("instances", &self.instances)?;
        fields.serialize_field("removed", &self.removed)?;
        if parts {
            fields.serialize_field("parts", &self.parts)?;
        }
        if next {
            fields.serialize_field("next", &self.next)?;
        }
        fields.end()
    }
}

// === impl Bookmark ===

impl Bookmark {
    /// A bookmark with this text.
    ///
    /// # Errors
    /// When it is empty, too long, or not printable ASCII without spaces.
    pub fn try_new(text: impl Into<Box<str>>) -> Result<Self, Invalid> {
        let text = text.into();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable && (1..=limits::MAX_BOOKMARK_LEN).contains(&text.len()) {
            return Ok(Self(text));
        }
        let rule = format!(
            "must be 1 to {} printable ASCII characters without spaces, just as an answer's `next` had it, got {}",
            limits::MAX_BOOKMARK_LEN,
            quoted(&text)
        );
        Err(Invalid::new("bookmark", rule))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Bookmark {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::try_new(text)
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Bookmark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bookmark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

// === impl Known ===

impl Known {
    /// Checks the limits.
    ///
    /// # Errors
    /// When there are more ids than a subset can have, or a digest does not have the parts of one.
    pub fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Ids(ids) if ids.len() > limits::MAX_KNOWN_IDS => {
                let rule = format!("at most {} ids, got {}", limits::MAX_KNOWN_IDS, ids.len());
                Err(Invalid::new("known", rule))
            }
            Self::Digest(digest) if digest.parts.len() != crate::digest::PARTS => {
                let rule = format!("a digest has {} parts, this one has {}", crate::digest::PARTS, digest.parts.len());
                Err(Invalid::new("known", rule))
            }
            Self::Ids(_) | Self::Digest(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both<T: Serialize + serde::de::DeserializeOwned + PartialEq + fmt::Debug>(value: &T) -> String {
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        let bytes = postcard::to_allocvec(value).unwrap();
        assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), *value);
        json
    }

    #[test]
    fn json_has_only_what_there_is_to_say() {
        let cursor = Cursor { epoch: 7, revision: 9 };
        let next = Some(Bookmark::try_new("7.9:product/product-1").unwrap());
        let last = Page { cursor, instances: vec![], next: None };
        assert_eq!(both(&last), r#"{"cursor":{"epoch":7,"revision":9},"instances":[]}"#);
        let page = Page { next: next.clone(), ..last };
        assert!(both(&page).ends_with(r#","next":"7.9:product/product-1"}"#));
        let quiet = Update::unchanged(cursor);
        let expected = r#"{"cursor":{"epoch":7,"revision":9},"snapshot":false,"instances":[],"removed":[]}"#;
        assert_eq!(both(&quiet), expected);
        let update = Update { parts: vec![0, 63], next, ..quiet };
        assert!(both(&update).ends_with(r#","parts":[0,63],"next":"7.9:product/product-1"}"#));
        assert!(!update.is_unchanged());
    }

    #[test]
    fn a_bookmark_is_a_short_printable_text() {
        let longest = "x".repeat(limits::MAX_BOOKMARK_LEN);
        assert_eq!(longest.parse::<Bookmark>().unwrap().to_string(), longest);
        for bad in ["", "a b", "a\n", "\u{e9}", &format!("{longest}x")] {
            assert_eq!(bad.parse::<Bookmark>().unwrap_err().field, "bookmark");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<Bookmark>(&json).unwrap_err().to_string().contains("printable"));
        }
    }

    #[test]
    fn what_a_watcher_knows_has_limits() {
        let digest = |parts| Known::Digest(Digest { count: 1, sum: u64::MAX, parts: vec![u64::MAX; parts] });
        let ids = |count| Known::Ids((0..count).map(|n| format!("i{n}").parse().unwrap()).collect());
        for good in [digest(crate::digest::PARTS), ids(0), ids(limits::MAX_KNOWN_IDS)] {
            good.validate().unwrap();
            both(&good);
        }
        assert!(both(&ids(1)).starts_with(r#"{"ids":["i0"]"#));
        for bad in [digest(0), digest(65), ids(limits::MAX_KNOWN_IDS + 1)] {
            assert_eq!(bad.validate().unwrap_err().field, "known");
        }
        let many = postcard::to_allocvec(&ids(3 * limits::MAX_KNOWN_IDS)).unwrap();
        assert!(postcard::from_bytes::<Known>(&many).is_err(), "nobody reads on for ever");
    }
}
