//! What operators ask of an instance beside its owner: changes in part, and that it goes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    bounded,
    history::Who,
    instance::{Instance, Outcome, Registration},
    meta::Meta,
    time::{self, Timestamp},
};

/// What is to change of an instance. Whatever is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patch {
    /// Its share of lookups.
    pub weight: Option<u32>,
    /// Which version it is; an empty one takes it away.
    pub version: Option<Box<str>>,
    /// Where it runs; an empty one takes it away.
    pub zone: Option<Box<str>>,
    /// Tags to add.
    #[serde(deserialize_with = "bounded::tags")]
    pub tags: Vec<Box<str>>,
    /// Tags to take away.
    #[serde(deserialize_with = "bounded::tags")]
    pub untag: Vec<Box<str>>,
    /// Metadata to set.
    pub meta: Meta,
    /// Keys of metadata to take away.
    #[serde(deserialize_with = "bounded::tags")]
    pub unmeta: Vec<Box<str>>,
    /// The path that is visited.
    pub path: Option<Arc<str>>,
    /// The time between two visits.
    #[serde(with = "time::duration::option")]
    pub interval: Option<Duration>,
    /// The time that a visit may take.
    #[serde(with = "time::duration::option")]
    pub timeout: Option<Duration>,
    /// How long it is remembered once it is evicted; no time at all takes it away.
    #[serde(with = "time::duration::option")]
    pub forget_after: Option<Duration>,
}

/// What a [`Patch`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// Whether anything changed.
    pub outcome: Outcome,
    /// The instance before.
    pub before: Arc<Instance>,
    /// The instance after.
    pub after: Arc<Instance>,
}

/// What became of an instance that an operator wanted to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissed {
    /// Who keeps it registered, as far as the server knows: a client that registered it and is still connected. It will
    /// register it again, unless the id is blocked.
    pub kept_by: Option<Who>,
    /// Until when its id is kept out.
    pub blocked_until: Option<Timestamp>,
}

// === impl Patch ===

impl Patch {
    /// The registration of an instance that is what it was, but for this. Not checked against any rule.
    #[must_use]
    pub fn apply(&self, known: &Instance) -> Registration {
        let label = |wish: &Option<Box<str>>, old: &Option<Box<str>>| match wish {
            Some(text) => Some(text).filter(|text| !text.is_empty()).cloned(),
            None => old.clone(),
        };
        let mut check = (*known.check).clone();
        check.path = self.path.clone().or(check.path);
        check.interval = self.interval.or(check.interval);
        check.timeout = self.timeout.or(check.timeout);
        let mut tags: Vec<Box<str>> = known.tags.iter().filter(|tag| !self.untag.contains(tag)).cloned().collect();
        for tag in &self.tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        let kept = known.meta.iter().filter(|(key, _)| !self.unmeta.iter().any(|gone| **gone == **key));
        let meta: BTreeMap<&str, &str> = kept.chain(self.meta.iter()).collect();
        Registration {
            id: Some(known.id.clone()),
            check,
            tags,
            meta: meta.into_iter().collect(),
            zone: label(&self.zone, &known.zone),
            version: label(&self.version, &known.version),
            weight: self.weight.unwrap_or(known.weight),
            forget_after: self.forget_after.or(known.forget_after).filter(|after| !after.is_zero()),
            ..Registration::new(known.name.clone(), known.address.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{instance::InstanceStatus, name::Namespace};

    fn known() -> Instance {
        let new = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        Instance {
            id: "product-1".parse().unwrap(),
            name: new.name,
            namespace: Namespace::default(),
            address: new.address,
            status: InstanceStatus::Passing,
            reason: "".into(),
            since: Timestamp::default(),
            registered_at: Timestamp::default(),
            check: Arc::new(new.check),
            tags: vec!["a".into(), "b".into()].into(),
            meta: [("k", "1"), ("l", "2")].into_iter().collect(),
            zone: Some("z".into()),
            version: Some("1".into()),
            weight: 3,
            history: Box::default(),
            forget_after: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let (known, nothing) = (known(), Patch::default().apply(&known()));
        assert_eq!((&*nothing.tags, &nothing.meta, nothing.weight), (&*known.tags, &known.meta, 3));
        assert_eq!(
            (nothing.zone, nothing.version, nothing.forget_after),
            (known.zone, known.version, known.forget_after)
        );
        assert_eq!((nothing.check, nothing.name), ((*known.check).clone(), known.name));
    }

    #[test]
    fn what_is_named_is_added_set_or_taken_away() {
        let patch = Patch {
            weight: Some(50),
            version: Some("".into()),
            zone: Some("y".into()),
            tags: vec!["b".into(), "c".into(), "c".into()],
            untag: vec!["a".into()],
            meta: [("l", "3"), ("m", "4")].into_iter().collect(),
            unmeta: vec!["k".into()],
            path: Some("/alive".into()),
            interval: Some(Duration::from_secs(9)),
            timeout: Some(Duration::from_secs(2)),
            forget_after: Some(Duration::ZERO),
        };
        let patched = patch.apply(&known());
        assert_eq!((patched.weight, patched.version, patched.zone.as_deref()), (50, None, Some("y")));
        assert_eq!(patched.tags, ["b".into(), "c".into()]);
        assert_eq!(patched.meta.iter().collect::<Vec<_>>(), [("l", "3"), ("m", "4")]);
        assert_eq!((patched.check.path(), patched.check.interval), (Some("/alive"), Some(Duration::from_secs(9))));
        assert_eq!((patched.forget_after, patched.id), (None, Some(known().id)));
    }
}
