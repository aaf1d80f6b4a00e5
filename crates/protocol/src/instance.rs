//! Instances: what is registered, and what is known about it.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    address::Address,
    check::Check,
    error::Invalid,
    limits,
    meta::Meta,
    name::{InstanceId, Namespace, ServiceName},
    time::{self, Timestamp},
};

/// What a service says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The service's name.
    pub name: ServiceName,
    /// Where callers, and the rounds, reach this instance.
    pub address: Address,
    /// The instance's id; the server makes one up when absent.
    #[serde(default)]
    pub id: Option<InstanceId>,
    /// How it is visited.
    #[serde(default)]
    pub check: Check,
    /// Words to filter by.
    #[serde(default)]
    pub tags: Vec<Box<str>>,
    /// Keys and values to filter by or to read.
    #[serde(default)]
    pub meta: Meta,
    /// Where it runs.
    #[serde(default)]
    pub zone: Option<Box<str>>,
    /// Which version it is.
    #[serde(default)]
    pub version: Option<Box<str>>,
    /// Its share of lookups, relative to the other instances.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// How long it is remembered once it is evicted, and visited now and then; the server's probation when absent. For
    /// instances that nothing keeps registered.
    #[serde(default, with = "time::duration::option")]
    pub forget_after: Option<Duration>,
    /// It was registered before, by a program that keeps it so: that takes the address from nobody. Where another instance
    /// is registered there by now, the answer is [`DiscoveryError::Replaced`](crate::DiscoveryError::Replaced).
    #[serde(default)]
    pub again: bool,
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The instance's id.
    pub id: InstanceId,
    /// What the registration did.
    pub outcome: Outcome,
    /// Who left for it, because it was registered at the same address.
    #[serde(default)]
    pub replaced: Vec<InstanceId>,
}

/// What a registration did. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The instance is new.
    Created,
    /// It was known, and its data changed.
    Updated,
    /// It was known with the very same data: nothing changed.
    Unchanged,
}

/// One running copy of a service, as everyone sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique in the namespace.
    pub id: InstanceId,
    /// The service.
    pub name: ServiceName,
    /// The tenant.
    pub namespace: Namespace,
    /// Where it listens.
    pub address: Address,
    /// Whether it is handed out.
    pub status: InstanceStatus,
    /// Why it has this status, such as `GET /health: connection refused`.
    pub reason: Arc<str>,
    /// Since when it has this status.
    pub since: Timestamp,
    /// When it registered.
    pub registered_at: Timestamp,
    /// How it is visited; shared, because a registry holds very many instances that are visited alike.
    pub check: Arc<Check>,
    /// Words to filter by.
    pub tags: Box<[Box<str>]>,
    /// Keys and values.
    pub meta: Meta,
    /// Where it runs.
    pub zone: Option<Box<str>>,
    /// Which version it is.
    pub version: Option<Box<str>>,
    /// Its share of lookups.
    pub weight: u32,
    /// The last flips of its status, oldest first. Filled in only where the query asked for it.
    #[serde(default)]
    pub history: Box<[Flip]>,
    /// How long it is remembered once it is evicted; the server's probation when absent.
    #[serde(default, with = "time::duration::option")]
    pub forget_after: Option<Duration>,
}

/// The status of an instance. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceStatus {
    /// Registered, no visit has passed yet. Not handed out.
    Starting,
    /// Handed out.
    Passing,
    /// A visit failed, the next one decides. Still handed out.
    Suspect,
    /// Failed. Not handed out; on probation, then forgotten.
    Evicted,
    /// Its owner or an operator asked for it: registered and visited, not handed out.
    Draining,
}

/// One change of an instance's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// When it happened.
    pub at: Timestamp,
    /// The status from then on.
    pub status: InstanceStatus,
    /// Why.
    pub reason: Arc<str>,
}

pub(crate) fn default_weight() -> u32 {
    limits::DEFAULT_WEIGHT
}

// === impl Registration ===

impl Registration {
    /// A registration of `name` at `address` with the default check, `GET /health`.
    #[must_use]
    pub fn new(name: ServiceName, address: Address) -> Self {
        Self {
            name,
            address,
            id: None,
            check: Check::default(),
            tags: Vec::new(),
            meta: Meta::default(),
            zone: None,
            version: None,
            weight: limits::DEFAULT_WEIGHT,
            forget_after: None,
            again: false,
        }
    }

    /// The bytes that its instance will take in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.tags, &self.meta, [&self.zone, &self.version])
    }

    /// Checks what the types alone do not: the check, sizes and counts.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.check.validate()?;
        if !limits::WEIGHT.contains(&self.weight) {
            let (low, high) = (limits::WEIGHT.start(), limits::WEIGHT.end());
            return Err(Invalid::new("weight", format!("must be between {low} and {high}, got {}", self.weight)));
        }
        if let Some(after) = self.forget_after.filter(|after| !limits::FORGET_AFTER.contains(after)) {
            let (low, high) =
                (time::display(*limits::FORGET_AFTER.start()), time::display(*limits::FORGET_AFTER.end()));
            let rule = format!("must be between {low} and {high}, got {}", time::display(after));
            return Err(Invalid::new("forget_after", rule));
        }
        validate_labels(&self.tags, self.zone.as_deref(), self.version.as_deref())?;
        validate_meta(&self.meta)
    }
}

/// What an instance with these texts takes in memory, about.
fn bytes(tags: &[Box<str>], meta: &Meta, labels: [&Option<Box<str>>; 2]) -> usize {
    let tags: usize = tags.iter().map(|tag| tag.len() + size_of::<Box<str>>()).sum();
    size_of::<Instance>() + tags + meta.allocated() + labels.into_iter().flatten().map(|text| text.len()).sum::<usize>()
}

pub(crate) fn validate_labels(tags: &[Box<str>], zone: Option<&str>, version: Option<&str>) -> Result<(), Invalid> {
    if tags.len() > limits::MAX_TAGS {
        return Err(Invalid::new("tags", format!("at most {} tags, got {}", limits::MAX_TAGS, tags.len())));
    }
    let tags = tags.iter().map(|tag| ("tags", &**tag));
    let rest = [zone.map(|zone| ("zone", zone)), version.map(|version| ("version", version))];
    tags.chain(rest.into_iter().flatten()).try_for_each(|(field, label)| validate_label(field, label))
}

fn validate_label(field: &str, label: &str) -> Result<(), Invalid> {
    if !label.is_empty() && label.len() <= limits::MAX_LABEL_LEN && !label.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("must be 1 to {} bytes without control characters, got {} bytes", limits::MAX_LABEL_LEN, label.len()),
    ))
}

pub(crate) fn validate_meta(meta: &Meta) -> Result<(), Invalid> {
    if meta.len() > limits::MAX_META_ENTRIES {
        return Err(Invalid::new("meta", format!("at most {} entries, got {}", limits::MAX_META_ENTRIES, meta.len())));
    }
    if meta.bytes() > limits::MAX_META_BYTES {
        return Err(Invalid::new(
            "meta",
            format!("at most {} bytes in all keys and values, got {}", limits::MAX_META_BYTES, meta.bytes()),
        ));
    }
    if meta.iter().any(|(key, _)| key.is_empty() || key.chars().any(char::is_control)) {
        return Err(Invalid::new("meta", "keys must not be empty nor have control characters"));
    }
    Ok(())
}

// === impl Instance ===

impl Instance {
    /// The bytes that it takes in memory, about; texts that instances share are not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.tags, &self.meta, [&self.zone, &self.version])
    }
}

// === impl InstanceStatus ===

impl InstanceStatus {
    /// Whether lookups hand such an instance out.
    #[must_use]
    pub fn is_available(self) -> bool {
        matches!(self, Self::Passing | Self::Suspect)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Passing => "passing",
            Self::Suspect => "suspect",
            Self::Evicted => "evicted",
            Self::Draining => "draining",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap())
    }

    #[test]
    fn the_shortest_json_is_enough() {
        let shortest = r#"{"name":"product","address":"10.0.0.7:7070"}"#;
        assert_eq!(serde_json::from_str::<Registration>(shortest).unwrap(), registration());
    }

    #[test]
    fn sizes_are_limited() {
        registration().validate().unwrap();
        let entries = (0..65).map(|n| (n.to_string(), String::new()));
        let refused = Registration { meta: entries.collect(), ..registration() };
        assert!(refused.validate().unwrap_err().rule.contains("64 entries"));
        let refused = Registration { meta: [("k", "v".repeat(16 * 1024))].into_iter().collect(), ..registration() };
        assert!(refused.validate().unwrap_err().rule.contains("16384 bytes"));
        let refused = Registration { weight: 0, ..registration() };
        assert_eq!(refused.validate().unwrap_err().field, "weight");
        let refused = Registration { tags: vec!["".into()], ..registration() };
        assert_eq!(refused.validate().unwrap_err().field, "tags");
        for after in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(366 * 24 * 3_600)] {
            let refused = Registration { forget_after: Some(after), ..registration() }.validate().unwrap_err();
            assert_eq!(refused.field, "forget_after");
            assert!(refused.rule.contains("between 1s and 8760h"), "{refused}");
        }
        let refused = Registration { zone: Some("a\nb".into()), ..registration() };
        assert_eq!(refused.validate().unwrap_err().field, "zone");
    }
}
