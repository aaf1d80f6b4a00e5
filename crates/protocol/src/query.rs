//! Questions about instances.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    bounded,
    error::Invalid,
    instance::{Instance, InstanceStatus, validate_labels, validate_meta},
    limits,
    meta::Meta,
    name::ServiceName,
    subset::Subset,
};

/// Which instances a list or a watch is about. The empty query means all that are handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// These services; all of the namespace when empty.
    #[serde(deserialize_with = "bounded::services")]
    pub services: Vec<ServiceName>,
    /// In which statuses.
    pub scope: Scope,
    /// Having all of these tags.
    #[serde(deserialize_with = "bounded::tags")]
    pub tags: Vec<Box<str>>,
    /// Having all of these metadata entries.
    pub meta: Meta,
    /// In this zone.
    pub zone: Option<Box<str>>,
    /// Of this version.
    pub version: Option<Box<str>>,
    /// Whether a list tells each instance's history. Watches never do.
    pub history: bool,
    /// Only some of them, chosen by the server for one of many callers who share the instances.
    pub subset: Option<Subset>,
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

    /// The same query for instances that have this tag, too.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// The same query for instances that have this metadata entry, too.
    #[must_use]
    pub fn meta(mut self, key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        let (key, value) = (key.into(), value.into());
        let entries = self.meta.iter().map(|(key, value)| (key.into(), value.into()));
        self.meta = entries.chain([(key, value)]).collect();
        self
    }

    /// The same query for instances in this zone.
    #[must_use]
    pub fn zone(self, zone: impl Into<Box<str>>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// The same query for instances of this version.
    #[must_use]
    pub fn version(self, version: impl Into<Box<str>>) -> Self {
        Self { version: Some(version.into()), ..self }
    }

    /// The same query for so many of those instances, as this client among all who share them.
    #[must_use]
    pub fn subset(self, client: impl Into<Box<str>>, size: u32) -> Self {
        Self { subset: Some(Subset { client: client.into(), size }), ..self }
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
        validate_meta(&self.meta)?;
        self.subset.as_ref().map_or(Ok(()), Subset::validate)
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
        let client = self.subset.as_ref().map_or(0, |subset| subset.client.len());
        size_of::<Self>() + texts.chain(services).sum::<usize>() + self.meta.bytes() + client
    }

    /// Whether the query is about this service.
    #[must_use]
    pub fn names(&self, service: &ServiceName) -> bool {
        self.services.is_empty() || self.services.contains(service)
    }

    /// Whether the query matches the instance. Whose subset it is in, only the server can tell.
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

impl Serialize for Query {
    /// In JSON, what was added later is left out where there is none.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let subset = self.subset.is_some() || !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Query", 7 + usize::from(subset))?;
        fields.serialize_field("services", &self.services)?;
        fields.serialize_field("scope", &self.scope)?;
        fields.serialize_field("tags", &self.tags)?;
        fields.serialize_field("meta", &self.meta)?;
        fields.serialize_field("zone", &self.zone)?;
        fields.serialize_field("version", &self.version)?;
        fields.serialize_field("history", &self.history)?;
        if subset {
            fields.serialize_field("subset", &self.subset)?;
        }
        fields.end()
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
