//! The two things that are known of an instance, each with an owner of its own, and what follows from them.

use std::sync::{Arc, LazyLock};

use roundsman_protocol::{Check, CheckKind, InstanceStatus, Timestamp};
use serde::{Deserialize, Serialize};

// Shared, because a registry holds very many instances that say the same.
static REGISTERED: LazyLock<Arc<str>> = LazyLock::new(|| "registered".into());
pub(super) static VISITED_ANEW: LazyLock<Arc<str>> = LazyLock::new(|| "visited in another way from now on".into());
static CALLED_IN: LazyLock<Arc<str>> = LazyLock::new(|| "called in".into());
static NOT_CHECKED: LazyLock<Arc<str>> = LazyLock::new(|| "not checked".into());
pub(super) static DRAINED: LazyLock<Arc<str>> = LazyLock::new(|| "drained by request".into());
static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// What an owner or an operator asked for, beside what the instance shows of it: its registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Grows with everything that is asked for, removals included. About the time in milliseconds: see
    /// [`Registry::next_version`](crate::Registry::next_version).
    pub version: u64,
    /// The version with which this life of the id began: one begins when it registers after an eviction, at another
    /// address or with another check. What was observed in an earlier life no longer counts.
    pub incarnation: u64,
    /// Whether it is to be kept out of the lookups.
    pub draining: bool,
    /// Whether an operator asked for that, and not its owner: then it holds until an operator takes it back, whatever
    /// registers under the id meanwhile. Only where `draining` is set.
    pub held: bool,
    /// Until when an operator keeps the id out. What is left of the instance is on probation until then, and nobody visits it.
    pub blocked: Option<Timestamp>,
}

/// What was observed of an instance in this life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The verdict.
    pub health: Health,
    /// The evidence.
    pub reason: Arc<str>,
    /// Since when the verdict holds.
    pub since: Timestamp,
    /// The server whose rounds say so; empty as long as none has.
    pub by: Arc<str>,
}

/// What the visits say about an instance; draining comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No visit has passed yet.
    Starting,
    /// The last visit passed.
    Passing,
    /// The last visit failed, and one more decides.
    Suspect,
    /// Out, and on probation.
    Evicted,
}

// === impl Asked ===

impl Asked {
    /// The latest version that is believed of what somebody else wrote: a time more than two thousand years from now. What
    /// is asked for afterwards is a little later.
    pub const LATEST: u64 = 1 << 46;
}

// === impl Observed ===

impl Observed {
    /// What is known of something that registers now, before anybody looked.
    pub(super) fn at_first(check: &Check, now: Timestamp) -> Self {
        let (health, reason) = match check.kind {
            CheckKind::None => (Health::Passing, &*NOT_CHECKED),
            CheckKind::Ttl => (Health::Passing, &*CALLED_IN),
            CheckKind::Http | CheckKind::Https | CheckKind::Tcp => (Health::Starting, &*REGISTERED),
        };
        Self { health, reason: Arc::clone(reason), since: now, by: Arc::clone(&NOBODY) }
    }

    /// What is left of one whose id is kept out.
    pub(super) fn out(reason: Arc<str>, now: Timestamp) -> Self {
        Self { health: Health::Evicted, reason, since: now, by: Arc::clone(&NOBODY) }
    }
}

/// The status that everyone sees, and why it is so.
pub(super) fn shown(asked: Asked, observed: &Observed) -> (InstanceStatus, Arc<str>) {
    let status = match observed.health {
        // Also where a server of an earlier release, which knows no blocks, visited it and found it well.
        _ if asked.blocked.is_some() => InstanceStatus::Evicted,
        Health::Evicted => InstanceStatus::Evicted,
        _ if asked.draining => InstanceStatus::Draining,
        Health::Starting => InstanceStatus::Starting,
        Health::Passing => InstanceStatus::Passing,
        Health::Suspect => InstanceStatus::Suspect,
    };
    let why = if status == InstanceStatus::Draining { &DRAINED } else { &observed.reason };
    (status, Arc::clone(why))
}
