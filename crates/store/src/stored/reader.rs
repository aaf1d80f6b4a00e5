//! Restoring records from their fields.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use roundsman_protocol::{Check, Flip, Instance, InstanceStatus, Meta, Namespace, ServiceName};
use roundsman_registry::{Health, Record};
use serde::Deserialize;

use super::{COUNT, observed_text};

/// How many different reasons a [`Reader`] remembers.
const MAX_REASONS: usize = 1_024;

/// Restores records from their fields.
///
/// It shares what records have in common: of a hundred thousand stored instances nearly all have the same check and
/// the same reasons, and reading and keeping each anew would be the larger part of the work and of the memory.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    check_text: String,
    check: Check,
    namespace: Namespace,
    name: Option<ServiceName>,
    reasons: HashSet<Arc<str>>,
}

/// A [`Flip`] without copies.
#[derive(Deserialize)]
struct FlipText<'a> {
    #[serde(borrow)]
    at: Cow<'a, str>,
    status: InstanceStatus,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// A field that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub(crate) struct Damaged {
    field: &'static str,
    reason: String,
}

// === impl Reader ===

impl Reader {
    /// Restores a record. Its incarnation is 0.
    ///
    /// # Errors
    /// The first field that cannot be read.
    pub(crate) fn record(&mut self, values: [&str; COUNT]) -> Result<Record, Damaged> {
        let [
            name,
            address,
            _health,
            id,
            namespace,
            _status,
            reason,
            since,
            registered_at,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            draining,
            observed,
            history,
        ] = values;
        let instance = Instance {
            id: parsed("id", id)?,
            name: self.name(name)?,
            namespace: self.namespace(namespace)?,
            address: parsed("address", address)?,
            status: InstanceStatus::Starting,
            reason: self.reason(reason),
            since: parsed("since", since)?,
            registered_at: parsed("registered_at", registered_at)?,
            check: self.check(check)?,
            tags: if tags == "[]" { Box::default() } else { from_json("tags", tags)? },
            meta: if meta == "{}" { Meta::default() } else { from_json("meta", meta)? },
            zone: Some(zone).filter(|zone| !zone.is_empty()).map(Into::into),
            version: Some(version).filter(|version| !version.is_empty()).map(Into::into),
            weight: parsed("weight", weight)?,
            history: Box::default(),
        };
        let history = self.history(history)?;
        Ok(Record::restored(instance, observed_from(observed)?, parsed("draining", draining)?, 0, history))
    }

    fn check(&mut self, text: &str) -> Result<Check, Damaged> {
        if text != self.check_text || text.is_empty() {
            self.check = from_json("check", text)?;
            text.clone_into(&mut self.check_text);
        }
        Ok(self.check.clone())
    }

    fn namespace(&mut self, text: &str) -> Result<Namespace, Damaged> {
        if self.namespace.as_str() != text {
            self.namespace = parsed("namespace", text)?;
        }
        Ok(self.namespace.clone())
    }

    fn name(&mut self, text: &str) -> Result<ServiceName, Damaged> {
        match &self.name {
            Some(name) if name.as_str() == text => Ok(name.clone()),
            _ => Ok(self.name.insert(parsed("name", text)?).clone()),
        }
    }

    fn history(&mut self, text: &str) -> Result<Arc<[Flip]>, Damaged> {
        let flips: Vec<FlipText<'_>> = from_json("history", text)?;
        let flip = |flip: FlipText<'_>| {
            Ok(Flip { at: parsed("history", &flip.at)?, status: flip.status, reason: self.reason(&flip.reason) })
        };
        flips.into_iter().map(flip).collect()
    }

    fn reason(&mut self, text: &str) -> Arc<str> {
        if let Some(reason) = self.reasons.get(text) {
            return Arc::clone(reason);
        }
        let reason = Arc::from(text);
        if self.reasons.len() < MAX_REASONS {
            self.reasons.insert(Arc::clone(&reason));
        }
        reason
    }
}

fn from_json<'a, T: Deserialize<'a>>(field: &'static str, text: &'a str) -> Result<T, Damaged> {
    serde_json::from_str(text).map_err(|error| Damaged { field, reason: error.to_string() })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Result<T, Damaged> {
    text.parse().map_err(|error: T::Err| Damaged { field, reason: error.to_string() })
}

fn observed_from(text: &str) -> Result<Health, Damaged> {
    [Health::Starting, Health::Passing, Health::Suspect, Health::Evicted]
        .into_iter()
        .find(|health| observed_text(*health) == text)
        .ok_or_else(|| Damaged { field: "observed", reason: format!("unknown value {text:?}") })
}
