//! Questions about instances, and the answers to watches.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::{
    error::Invalid,
    instance::{Instance, InstanceStatus, validate_labels, validate_meta},
    limits,
    meta::Meta,
    name::{InstanceId, ServiceName},
};

/// Which instances a list or a watch is about. The empty query means all that are handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// These services; all of the namespace when empty.
    #[serde(deserialize_with = "few")]
    pub services: Vec<ServiceName>,
    /// In which statuses.
    pub scope: Scope,
    /// Having all of these tags.
    #[serde(deserialize_with = "few")]
    pub tags: Vec<Box<str>>,
    /// Having all of these metadata entries.
    pub meta: Meta,
    /// In this zone.
    pub zone: Option<Box<str>>,
    /// Of this version.
    pub version: Option<Box<str>>,
    /// Whether a list tells each instance's history. Watches never do.
    pub history: bool,
}

/// Which statuses a query includes. Append only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// What is handed out: passing and suspect.
    #[default]
    Available,
    /// All that are registered: also starting and draining.
    Registered,
    /// Also those on probation.
    All,
}

/// A point in one server's history of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// New at each start of a server; below 2^53, so that every JSON library keeps it exactly.
    pub epoch: u64,
    /// Counts the server's changes of the namespace.
    pub revision: u64,
}

/// What a watch answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// How many instances of a service are in which status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// The service.
    pub name: ServiceName,
    /// Registered instances, those on probation not counted.
    pub instances: u32,
    /// Of these: passing.
    pub passing: u32,
    /// Of these: suspect.
    pub suspect: u32,
    /// Of these: starting.
    pub starting: u32,
    /// Of these: draining.
    pub draining: u32,
    /// On probation.
    pub evicted: u32,
}

/// What a caller met when it tried to use an instance. Append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// The connection was refused.
    Refused,
    /// The connection broke.
    Reset,
    /// No answer in time.
    Timeout,
    /// An answer with this HTTP status.
    Status(u16),
    /// Calls keep failing, in ways that the caller does not tell apart.
    Failing,
}

/// Reads a list, and stops as soon as it is far longer than any that is valid: [`Query::validate`] says what is wrong
/// with those that are a little too long.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            const MOST: usize = 2 * limits::MAX_QUERY_SERVICES;
            let mut read = Vec::new();
            while let Some(element) = list.next_element()? {
                if read.len() == MOST {
                    let (services, tags) = (limits::MAX_QUERY_SERVICES, limits::MAX_TAGS);
                    let rule = format!("a query has at most {services} services and at most {tags} tags");
                    return Err(serde::de::Error::custom(rule));
                }
                read.push(element);
            }
            Ok(read)
        }
    }
    deserializer.deserialize_seq(Few(PhantomData))
}

// === impl Query ===

impl Query {
    /// What is handed out of one service.
    #[must_use]
    pub fn service(name: ServiceName) -> Self {
        Self { services: vec![name], ..Self::default() }
    }

    /// The same query for instances in `scope`.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Checks the limits: no query may ask for more than an instance can have.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.services.len() > limits::MAX_QUERY_SERVICES {
            let rule = format!("at most {}, got {}", limits::MAX_QUERY_SERVICES, self.services.len());
            return Err(Invalid::new("services", rule));
        }
        validate_labels(&self.tags, self.zone.as_deref(), self.version.as_deref())?;
        validate_meta(&self.meta)
    }

    /// The same query in the one form that all queries of its meaning have: names and tags in order, none twice.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.services.sort_unstable();
        self.services.dedup();
        self.tags.sort_unstable();
        self.tags.dedup();
        self
    }

    /// The bytes that it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = self.tags.iter().map(|tag| tag.len() + size_of::<Box<str>>());
        let services = self.services.iter().map(|name| name.as_str().len() + 2 * size_of::<ServiceName>());
        size_of::<Self>() + texts.chain(services).sum::<usize>() + self.meta.bytes()
    }

    /// Whether the query is about this service.
    #[must_use]
    pub fn names(&self, service: &ServiceName) -> bool {
        self.services.is_empty() || self.services.contains(service)
    }

    /// Whether the query matches the instance.
    #[must_use]
    pub fn matches(&self, instance: &Instance) -> bool {
        self.names(&instance.name) && self.describes(instance)
    }

    /// Whether the query matches the instance, whatever its service.
    #[must_use]
    pub fn describes(&self, instance: &Instance) -> bool {
        self.scope.includes(instance.status)
            && self.tags.iter().all(|tag| instance.tags.contains(tag))
            && self.meta.iter().all(|(key, value)| instance.meta.get(key) == Some(value))
            && self.zone.as_ref().is_none_or(|zone| instance.zone.as_ref() == Some(zone))
            && self.version.as_ref().is_none_or(|version| instance.version.as_ref() == Some(version))
    }
}

// === impl Scope ===

impl Scope {
    /// Whether instances in `status` are included.
    #[must_use]
    pub fn includes(self, status: InstanceStatus) -> bool {
        match self {
            Self::Available => status.is_available(),
            Self::Registered => status != InstanceStatus::Evicted,
            Self::All => true,
        }
    }
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.revision)
    }
}

// === impl Update ===

impl Update {
    /// The answer "nothing changed since then".
    #[must_use]
    pub fn unchanged(cursor: Cursor) -> Self {
        Self { cursor, snapshot: false, instances: Vec::new(), removed: Vec::new() }
    }

    /// Whether there is anything to act on.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        !self.snapshot && self.instances.is_empty() && self.removed.is_empty()
    }
}

// === impl Trouble ===

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection reset"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Failing => f.write_str("calls keep failing"),
        }
    }
}
