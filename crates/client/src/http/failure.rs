//! What became of a try that was not answered.

use std::{error::Error as StdError, io, time::Duration};

use http::StatusCode;
use roundsman_protocol::{Address, Trouble, time};

use super::CONNECT_TIMEOUT;
use crate::dial::describe;

/// Why a try was not answered.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) trouble: Trouble,
    /// In words.
    pub(crate) detail: String,
    /// Whether the request may have reached the instance.
    pub(crate) maybe_sent: bool,
    pub(crate) kind: Kind,
}

/// What a failure says about the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is in trouble: another one may do better.
    Instance,
    /// Its answer is longer than the caller wants.
    TooLarge,
    /// It is none of its fault.
    Request,
}

// === impl Failure ===

impl Failure {
    /// No answer in the time that it had.
    pub(crate) fn late(after: Duration) -> Self {
        let detail = format!("no answer within {}", time::display(rounded(after)));
        Self { trouble: Trouble::Timeout, detail, maybe_sent: true, kind: Kind::Instance }
    }

    /// The body is longer than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("its answer is longer than {limit} bytes");
        Self { trouble: Trouble::Reset, detail, maybe_sent: true, kind: Kind::TooLarge }
    }

    /// An answer of this status.
    pub(crate) fn status(status: StatusCode) -> Self {
        let trouble = Trouble::Status(status.as_u16());
        Self { trouble, detail: status.to_string(), maybe_sent: true, kind: Kind::Instance }
    }

    /// An address to which no URL leads.
    pub(crate) fn unusable(address: &Address) -> Self {
        let detail = format!("no URL leads to `{address}`");
        Self { trouble: Trouble::Refused, detail, maybe_sent: false, kind: Kind::Instance }
    }

    /// An error of the caller's own making, after which there is no next try.
    #[cfg(feature = "middleware")]
    pub(crate) fn foreign(error: &dyn StdError) -> Self {
        Self { trouble: Trouble::Reset, detail: error.to_string(), maybe_sent: true, kind: Kind::Request }
    }

    /// Nobody was there.
    pub(crate) fn is_refused(&self) -> bool {
        !self.maybe_sent && self.trouble == Trouble::Refused
    }
}

impl From<&reqwest::Error> for Failure {
    fn from(error: &reqwest::Error) -> Self {
        let kind = if error.is_builder() { Kind::Request } else { Kind::Instance };
        let root = root(error);
        let cause = root.downcast_ref::<io::Error>();
        let detail = cause.map_or_else(|| root.to_string(), describe);
        if error.is_builder() {
            return Self { trouble: Trouble::Reset, detail, maybe_sent: false, kind };
        }
        if !error.is_connect() {
            let trouble = if error.is_timeout() { Trouble::Timeout } else { Trouble::Reset };
            return Self { trouble, detail, maybe_sent: true, kind };
        }
        let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused);
        let trouble = if refused { Trouble::Refused } else { Trouble::Timeout };
        let detail = if error.is_timeout() {
            format!("no connection within {}", time::display(CONNECT_TIMEOUT))
        } else {
            detail
        };
        Self { trouble, detail, maybe_sent: false, kind }
    }
}

/// The cause of all causes.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root
}

/// To the millisecond, for people.
pub(crate) fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
