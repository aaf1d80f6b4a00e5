//! Fingerprints of instances, and digests of sets of them: two sides find out in a few bytes whether they know the same.
//!
//! Any language can compute them. The hash is SipHash-1-3 with both keys 0, over these bytes: a number is eight bytes,
//! little endian; a text is its length in bytes, as a number, then its UTF-8; a list is its length, as a number, then
//! its elements; an optional text is a list of none or one. The fields of an instance, in this order:
//!
//! | field | as |
//! |---|---|
//! | `id`, `name` | texts |
//! | `address` | a text, as JSON has it |
//! | `status` | a text: `starting`, `passing`, `suspect`, `evicted` or `draining` |
//! | `reason` | a text |
//! | `since`, `registered_at` | numbers: milliseconds since 1970 |
//! | `check` | a text: its JSON as the server writes it, without spaces |
//! | `tags` | a list of texts, in their order |
//! | `meta` | a list of entries, each two texts: key and value, sorted by key |
//! | `zone`, `version` | optional texts |
//! | `weight` | a number |
//!
//! The history is not part of it, nor is any field that a later version adds: both sides compute the same, whatever
//! their release. The tests below hold fixed examples.

mod sum;

use std::{cell::RefCell, hash::Hasher, sync::Arc};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    check::Check,
    instance::{Instance, InstanceStatus},
    name::InstanceId,
};

/// How many parts a digest has.
pub const PARTS: usize = 64;
/// All parts of a digest, as a bitmask.
pub const ALL_PARTS: u64 = u64::MAX;

/// What a set of instances adds up to. Equal digests mean equal sets, but for odds of one in 2^64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many instances there are.
    pub count: u64,
    /// The wrapping sum of their fingerprints.
    #[serde(with = "sum")]
    pub sum: u64,
    /// The same sum for each of [`PARTS`] parts: an instance belongs to that of its [`InstanceId::part`].
    #[serde(with = "sum::list")]
    pub parts: Vec<u64>,
}

/// Feeds a hash with the values that the table of this module names.
struct Fields(SipHasher13);

// === impl Instance ===

impl Instance {
    /// The hash of everything that is known about the instance but its history.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut fields = Fields(SipHasher13::new());
        fields.text(self.id.as_str());
        fields.text(self.name.as_str());
        fields.text(&self.address.to_string());
        fields.text(status(self.status));
        fields.text(&self.reason);
        fields.number(self.since.as_millis());
        fields.number(self.registered_at.as_millis());
        with_text(&self.check, |check| fields.text(check));
        fields.list(self.tags.len());
        self.tags.iter().for_each(|tag| fields.text(tag));
        fields.list(self.meta.len());
        for (key, value) in self.meta.iter() {
            fields.text(key);
            fields.text(value);
        }
        fields.optional(self.zone.as_deref());
        fields.optional(self.version.as_deref());
        fields.number(u64::from(self.weight));
        fields.0.finish()
    }
}

/// Calls `then` with the JSON of a check. Nearly all instances share theirs, so the last one is remembered.
fn with_text(check: &Arc<Check>, then: impl FnOnce(&str)) {
    thread_local! {
        static LAST: RefCell<Option<(Arc<Check>, Box<str>)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some((known, text)) if Arc::ptr_eq(known, check) => then(text),
        _ => {
            // Writing a check fails for none that there is; a text in its place differs from every check.
            let text: Box<str> = serde_json::to_string(&**check).unwrap_or_default().into();
            then(&text);
            *last = Some((Arc::clone(check), text));
        }
    });
}

/// The status as JSON has it.
fn status(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Starting => "starting",
        InstanceStatus::Passing => "passing",
        InstanceStatus::Suspect => "suspect",
        InstanceStatus::Evicted => "evicted",
        InstanceStatus::Draining => "draining",
    }
}

// === impl InstanceId ===

impl InstanceId {
    /// The part of a digest that the instance belongs to, below [`PARTS`]: the hash of the id's UTF-8, without a length
    /// before it, modulo [`PARTS`].
    #[must_use]
    pub fn part(&self) -> usize {
        let mut hasher = SipHasher13::new();
        hasher.write(self.as_str().as_bytes());
        // Less than 64 fits everywhere.
        usize::try_from(hasher.finish() % (PARTS as u64)).unwrap_or_default()
    }

    /// The part as a bitmask.
    #[must_use]
    pub fn part_mask(&self) -> u64 {
        1 << self.part()
    }
}

// === impl Fields ===

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    fn list(&mut self, len: usize) {
        self.number(u64::try_from(len).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.list(text.len());
        self.0.write(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.list(usize::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }
}

// === impl Digest ===

impl Default for Digest {
    /// That of no instance.
    fn default() -> Self {
        Self { count: 0, sum: 0, parts: vec![0; PARTS] }
    }
}

impl Digest {
    /// That of a set of instances.
    pub fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let mut digest = Self::default();
        for instance in instances {
            digest.add(&instance.id, instance.fingerprint());
        }
        digest
    }

    /// Adds an instance by its fingerprint.
    pub fn add(&mut self, id: &InstanceId, fingerprint: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(fingerprint);
        if let Some(part) = self.parts.get_mut(id.part()) {
            *part = part.wrapping_add(fingerprint);
        }
    }

    /// Takes out an instance that was added with this fingerprint.
    pub fn remove(&mut self, id: &InstanceId, fingerprint: u64) {
        self.count = self.count.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(fingerprint);
        if let Some(part) = self.parts.get_mut(id.part()) {
            *part = part.wrapping_sub(fingerprint);
        }
    }

    /// The parts in which two digests differ, as a bitmask: part `n` is bit `n`. All of them when the digests differ
    /// although no part does.
    #[must_use]
    pub fn parts_that_differ(&self, other: &Self) -> u64 {
        if self == other {
            return 0;
        }
        let pairs = self.parts.iter().zip(&other.parts).take(PARTS).enumerate();
        let mask = pairs.filter(|(_, (a, b))| a != b).fold(0, |mask, (part, _)| mask | 1 << part);
        if mask == 0 || self.parts.len() != other.parts.len() { ALL_PARTS } else { mask }
    }
}

#[cfg(test)]
mod tests;
