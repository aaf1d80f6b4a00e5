//! What can go wrong between a client and the server, as both of them see it.

use std::{convert::Infallible, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    name::{InstanceId, ServiceName},
    time::Timestamp,
};

/// A value that breaks a rule: which field, and what the rule is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field as the caller knows it, such as `name` or `check.ttl`.
    pub field: String,
    /// The rule and what was found instead, as a sentence.
    pub rule: String,
}

impl Invalid {
    /// `field` breaks `rule`.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into() }
    }
}

/// Every refusal that a server answers. Append only: the variants' order is the wire format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DiscoveryError {
    /// The request breaks a rule. Sending it again cannot help.
    #[error("{0}")]
    Invalid(Invalid),
    /// Nobody ever registered under this name, or all who did are gone.
    #[error("no service named `{service}` is registered")]
    NoSuchService {
        /// The name that was asked for.
        service: ServiceName,
    },
    /// The service has instances, but none of them may be handed out at the moment.
    #[error("service `{service}` has no passing instance ({registered} registered)")]
    NonePassing {
        /// The name that was asked for.
        service: ServiceName,
        /// How many instances are registered, in whatever status.
        registered: u32,
    },
    /// No live instance has this id: it was never registered, has been evicted or has left. Register again.
    #[error("instance `{id}` is not registered")]
    NotRegistered {
        /// The id that was asked for.
        id: InstanceId,
    },
    /// The store does not answer, so nothing can be changed durably. Reads go on. Try again.
    #[error("the store is unavailable ({reason}); try again in {}", crate::time::display(*.retry_after))]
    StoreUnavailable {
        /// What the store said, in short.
        reason: String,
        /// When trying again is worth it.
        #[serde(with = "crate::time::duration")]
        retry_after: Duration,
    },
    /// A limit of the server is reached. The operator can raise it by the flag of that name.
    #[error("the server's limit {limit} ({value}) is reached")]
    LimitReached {
        /// The flag that sets the limit, such as `--max-instances`.
        limit: String,
        /// The limit's value.
        value: u64,
    },
    /// The server is going away. Ask another one, or the same one a little later.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Another instance is registered at this one's address, and was registered later. Asking again can help once that one
    /// is gone.
    #[error("instance `{id}` was replaced by `{by}` at the same address")]
    Replaced {
        /// The id that was asked for.
        id: InstanceId,
        /// Who is there now.
        by: InstanceId,
    },
    /// An operator keeps this id out for a while.
    #[error("instance `{id}` is {reason}")]
    Blocked {
        /// The id that was asked for.
        id: InstanceId,
        /// Until when.
        until: Timestamp,
        /// The same in words, with who asked for it: `blocked until 2026-11-22T02:00:00Z by 10.0.0.9:51234`.
        reason: Box<str>,
    },
}

/// For conversions that cannot fail.
impl From<Infallible> for Invalid {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl DiscoveryError {
    /// Whether the very same request may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::StoreUnavailable { .. } | Self::LimitReached { .. } | Self::ShuttingDown)
    }

    /// Whether the answer means "there is no such thing", which is exit code 3 on the command line.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoSuchService { .. } | Self::NonePassing { .. } | Self::NotRegistered { .. })
    }
}

impl From<Invalid> for DiscoveryError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
