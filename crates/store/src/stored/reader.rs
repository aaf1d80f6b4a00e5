//! Restoring records from their fields.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{
    Check, Flip, Instance, InstanceStatus, Meta, Namespace, ServiceName, Timestamp, limits, time,
};
use roundsman_registry::{Asked, Health, Observed, Record};
use serde::Deserialize;

use super::{COUNT, FIELDS, observed_text};

/// How many different names of services a [`Reader`] remembers.
const MAX_NAMES: usize = 65_536;
/// How many different reasons a [`Reader`] remembers, and how many different lists of tags.
const MAX_REASONS: usize = 1_024;
/// The last version of a record that is believed. More than [`Asked::LATEST`], after which versions may come.
const MAX_VERSION: u64 = Asked::LATEST * 2;
/// The longest field that is believed. What clients may say is far shorter.
pub(crate) const MAX_FIELD_BYTES: usize = 1 << 20;

/// Restores records from their fields.
///
/// It shares what records have in common: of a hundred thousand stored instances nearly all have the same check and
/// the same reasons, and reading and keeping each anew would be the larger part of the work and of the memory.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    check_text: String,
    check: Arc<Check>,
    namespace: Namespace,
    names: HashMap<Box<str>, ServiceName>,
    reasons: HashSet<Arc<str>>,
    tags: HashMap<Box<str>, Box<[Box<str>]>>,
    no_flips: Arc<[Flip]>,
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
    /// Restores a record.
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
            asked,
            incarnation,
            evidence,
            observed_since,
            observed_by,
            forget_after,
            held,
            blocked,
        ] = values;
        if let Some(n) = values.iter().position(|value| value.len() > MAX_FIELD_BYTES) {
            let field = FIELDS.get(n).copied().unwrap_or_default();
            return Err(Damaged { field, reason: format!("longer than {MAX_FIELD_BYTES} bytes") });
        }
        let registered_at_time: Timestamp = parsed("registered_at", registered_at)?;
        // Most have the status that they began with.
        let since_time = if since == registered_at { registered_at_time } else { parsed("since", since)? };
        let instance = Instance {
            id: parsed("id", id)?,
            name: self.name(name)?,
            namespace: self.namespace(namespace)?,
            address: parsed("address", address)?,
            status: InstanceStatus::Starting,
            reason: self.reason(reason),
            since: since_time,
            registered_at: registered_at_time,
            check: self.check(check)?,
            tags: self.tags(tags)?,
            meta: if meta == "{}" { Meta::default() } else { from_json("meta", meta)? },
            zone: Some(zone).filter(|zone| !zone.is_empty()).map(Into::into),
            version: Some(version).filter(|version| !version.is_empty()).map(Into::into),
            weight: weight_from(weight)?,
            history: Box::default(),
            forget_after: if forget_after.is_empty() { None } else { Some(forget_after_from(forget_after)?) },
        };
        // Earlier releases wrote none of these.
        let earlier = asked.is_empty() || asked == "0";
        let version = if earlier { registered_at_time.as_millis() } else { version_from("asked", asked)? };
        let draining = parsed("draining", draining)?;
        let held = held_from(held)?;
        let asked = Asked {
            version,
            incarnation: if earlier { version } else { version_from("incarnation", incarnation)? },
            draining,
            // A server of an earlier release takes a drain back without a look at whose it is.
            held: draining && held,
            blocked: if blocked.is_empty() { None } else { Some(parsed("blocked", blocked)?) },
        };
        let observed = Observed {
            health: observed_from(observed)?,
            reason: if evidence.is_empty() { Arc::clone(&instance.reason) } else { self.reason(evidence) },
            since: match observed_since {
                "" => since_time,
                same if same == since => since_time,
                other => parsed("observed_since", other)?,
            },
            by: self.reason(observed_by),
        };
        let history = self.history(history)?;
        Ok(Record::restored(instance, asked, observed, history))
    }

    fn check(&mut self, text: &str) -> Result<Arc<Check>, Damaged> {
        if text != self.check_text || text.is_empty() {
            self.check_text.clear();
            self.check = Arc::new(check_from(text)?);
            text.clone_into(&mut self.check_text);
        }
        Ok(Arc::clone(&self.check))
    }

    fn namespace(&mut self, text: &str) -> Result<Namespace, Damaged> {
        if self.namespace.as_str() != text {
            self.namespace = parsed("namespace", text)?;
        }
        Ok(self.namespace.clone())
    }

    fn name(&mut self, text: &str) -> Result<ServiceName, Damaged> {
        if let Some(name) = self.names.get(text) {
            return Ok(name.clone());
        }
        let name: ServiceName = parsed("name", text)?;
        if self.names.len() < MAX_NAMES {
            self.names.insert(text.into(), name.clone());
        }
        Ok(name)
    }

    fn tags(&mut self, text: &str) -> Result<Box<[Box<str>]>, Damaged> {
        if text == "[]" {
            return Ok(Box::default());
        }
        if let Some(tags) = self.tags.get(text) {
            return Ok(tags.clone());
        }
        let tags: Box<[Box<str>]> = from_json("tags", text)?;
        if self.tags.len() < MAX_REASONS {
            self.tags.insert(text.into(), tags.clone());
        }
        Ok(tags)
    }

    fn history(&mut self, text: &str) -> Result<Arc<[Flip]>, Damaged> {
        if text == "[]" {
            return Ok(Arc::clone(&self.no_flips));
        }
        let mut flips: Vec<FlipText<'_>> = from_json("history", text)?;
        flips.drain(..flips.len().saturating_sub(limits::HISTORY));
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

/// A check within what holds today: the rules may have been wider when it was stored.
fn check_from(text: &str) -> Result<Check, Damaged> {
    let mut check: Check = from_json("check", text)?;
    let clamp = |value: &mut Option<Duration>, range: RangeInclusive<Duration>| {
        *value = value.map(|value| value.clamp(*range.start(), *range.end()));
    };
    clamp(&mut check.interval, limits::INTERVAL);
    clamp(&mut check.timeout, limits::TIMEOUT);
    clamp(&mut check.ttl, limits::TTL);
    if let (Some(timeout), Some(interval)) = (check.timeout, check.interval) {
        check.timeout = Some(timeout.min(interval));
    }
    check.validate().map_err(|error| Damaged { field: "check", reason: error.to_string() })?;
    Ok(check)
}

fn version_from(field: &'static str, text: &str) -> Result<u64, Damaged> {
    let version = parsed(field, text)?;
    if version <= MAX_VERSION {
        return Ok(version);
    }
    Err(Damaged { field, reason: format!("{version} is beyond all time") })
}

/// A time within what holds today: the rules may have been wider when it was stored.
fn forget_after_from(text: &str) -> Result<Duration, Damaged> {
    let after = time::parse(text).map_err(|reason| Damaged { field: "forget_after", reason })?;
    Ok(after.clamp(*limits::FORGET_AFTER.start(), *limits::FORGET_AFTER.end()))
}

fn held_from(text: &str) -> Result<bool, Damaged> {
    if text.is_empty() { Ok(false) } else { parsed("held", text) }
}

fn weight_from(text: &str) -> Result<u32, Damaged> {
    let weight = parsed("weight", text)?;
    if limits::WEIGHT.contains(&weight) {
        return Ok(weight);
    }
    Err(Damaged { field: "weight", reason: format!("{weight} is no weight") })
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
