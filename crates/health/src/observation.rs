//! What comes out of the rounds, and what may hurry a visit.

use std::{fmt, sync::Arc, time::Duration};

use roundsman_protocol::{Timestamp, Trouble};
use roundsman_registry::{Health, Key};

/// Something that the rounds found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The health of an instance changed.
    Health {
        /// Which one.
        key: Key,
        /// In which of its lives.
        incarnation: u64,
        /// Its health from now on.
        health: Health,
        /// What the visit behind it met.
        class: Class,
        /// The same in words, such as `GET /health: connection refused`.
        reason: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// Its probation is over: it is no longer visited and may be removed. Where it stays because another server saw it well,
    /// [`Rounds::track`](crate::Rounds::track) tells, and its visits go on.
    Forget {
        /// Which one.
        key: Key,
        /// In which of its lives.
        incarnation: u64,
        /// Why, in words.
        reason: Arc<str>,
    },
}

/// What a visit met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// It passed.
    Passed,
    /// Nobody listens there.
    Refused,
    /// The connection broke before the answer was complete.
    Reset,
    /// No answer in time, or no way there. May be our own fault.
    Silence,
    /// An answer, but no 2xx.
    Status,
    /// An answer that is not HTTP.
    Garbage,
    /// An answer, but not of the instance: another program's.
    Stranger,
    /// The host name has no address.
    Unresolved,
    /// An address that must not be visited.
    Forbidden,
    /// No visit passed in time after it registered.
    StartDeadline,
    /// It did not renew within its ttl.
    Ttl,
}

/// Learns of every visit that was made, for metrics.
pub trait Witness: Send + Sync + fmt::Debug {
    /// A visit ended. Called on the visitor's task: it must not block.
    fn visited(&self, class: Class, took: Duration);

    /// A timeout or the expiry of a ttl was void, because this process was late. Called on that instance's task.
    fn voided(&self) {}
}

/// Why somebody wants an instance to be visited at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// The connection that it registered on closed.
    SessionClosed,
    /// A caller could not reach it.
    Reported(Trouble),
}

// === impl Class ===

impl Class {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Passed,
        Self::Refused,
        Self::Reset,
        Self::Silence,
        Self::Status,
        Self::Garbage,
        Self::Stranger,
        Self::Unresolved,
        Self::Forbidden,
        Self::StartDeadline,
        Self::Ttl,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Silence => "silence",
            Self::Status => "status",
            Self::Garbage => "garbage",
            Self::Stranger => "stranger",
            Self::Unresolved => "unresolved",
            Self::Forbidden => "forbidden",
            Self::StartDeadline => "start_deadline",
            Self::Ttl => "ttl",
        }
    }
}
