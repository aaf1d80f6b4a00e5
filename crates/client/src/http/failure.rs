//! What became of a try that was not answered.

use std::{error::Error as StdError, io, time::Duration};

use http::StatusCode;
use hyper_util::client::legacy;
use roundsman_protocol::{Address, Trouble, time};

use super::{CONNECT_TIMEOUT, body::BrokenOff};
use crate::dial::describe;

/// What is said of a request that came to no end.
const BROKE_OFF: &str = "the body of the request broke off";

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
    /// Its caller could not deliver the whole request, of which it may have got a part.
    Upload,
    /// It is ours: we have no descriptor, no port or no memory left.
    Ours,
    /// The request is at fault: nothing can be sent.
    #[cfg_attr(
        not(feature = "reqwest"),
        allow(dead_code, reason = "a client of our own is asked for nothing that it cannot do")
    )]
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

    /// No connection came about: nothing was sent. `limit` is how long it may take, where that is known.
    fn unconnected(error: &(dyn StdError + 'static), limit: Option<Duration>) -> Self {
        let cause = root(error).downcast_ref::<io::Error>();
        let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused);
        let detail = if chain(error).any(is_late) {
            limit.map_or("no connection in time".to_owned(), |limit| {
                format!("no connection within {}", time::display(limit))
            })
        } else {
            describe_root(error)
        };
        let trouble = if refused { Trouble::Refused } else { Trouble::Timeout };
        let kind = if cause.is_some_and(is_ours) { Kind::Ours } else { Kind::Instance };
        Self { trouble, detail, maybe_sent: false, kind }
    }

    /// The connection broke, what came was not HTTP, or what was to be sent did not come.
    pub(crate) fn broken(error: &(dyn StdError + 'static)) -> Self {
        if let Some(detail) = undelivered(error) {
            return Self::upload(detail);
        }
        let trouble = if chain(error).any(is_late) { Trouble::Timeout } else { Trouble::Reset };
        let maybe_sent = !chain(error).any(is_untouched);
        Self { trouble, detail: describe_root(error), maybe_sent, kind: Kind::Instance }
    }

    /// The body of the request broke off.
    fn upload(detail: String) -> Self {
        Self { trouble: Trouble::Reset, detail, maybe_sent: true, kind: Kind::Upload }
    }

    /// Whether it counts against the instance.
    pub(crate) fn counts(&self) -> bool {
        self.kind == Kind::Instance
    }

    /// Nobody was there.
    pub(crate) fn is_refused(&self) -> bool {
        !self.maybe_sent && self.trouble == Trouble::Refused
    }
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        if error.is_connect() { Self::unconnected(&error, Some(CONNECT_TIMEOUT)) } else { Self::broken(&error) }
    }
}

#[cfg(feature = "reqwest")]
impl From<&reqwest::Error> for Failure {
    fn from(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            let detail = describe_root(error);
            return Self { trouble: Trouble::Reset, detail, maybe_sent: false, kind: Kind::Request };
        }
        // A body of its own, which does not have our mark.
        let of_body = |cause: &(dyn StdError + 'static)| cause.downcast_ref().is_some_and(reqwest::Error::is_body);
        if error.is_request() && chain(error).skip(1).any(of_body) {
            return Self::upload(format!("{BROKE_OFF}: {}", describe_root(error)));
        }
        if error.is_connect() { Self::unconnected(error, None) } else { Self::broken(error) }
    }
}

/// Whether it was the time that was up.
fn is_late(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
        return true;
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Whether we have too little of something to connect to anybody.
#[cfg(target_os = "linux")]
fn is_ours(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | EADDRNOTAVAIL | ENOBUFS))
}

/// Elsewhere the numbers are others.
#[cfg(not(target_os = "linux"))]
fn is_ours(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// What is to be said where the body of the request broke off on its caller's side.
fn undelivered(error: &(dyn StdError + 'static)) -> Option<String> {
    if chain(error).any(|error| error.is::<BrokenOff>()) {
        return Some(format!("{BROKE_OFF}: {}", describe_root(error)));
    }
    chain(error).any(is_taken_back).then(|| BROKE_OFF.to_owned())
}

/// Whether it was us who reset a stream. Its body is the only reason for that while somebody waits for the answer; what it said
/// is lost on the way.
#[cfg(feature = "grpc")]
fn is_taken_back(error: &(dyn StdError + 'static)) -> bool {
    let error = error.downcast_ref::<h2::Error>();
    error.is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

/// HTTP/1 has no streams.
#[cfg(not(feature = "grpc"))]
fn is_taken_back(_: &(dyn StdError + 'static)) -> bool {
    false
}

/// Whether the other side says that it has not looked at the request, as one that leaves does.
#[cfg(feature = "grpc")]
fn is_untouched(error: &(dyn StdError + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<h2::Error>().filter(|error| error.is_remote()) else { return false };
    let reason = error.reason();
    // Of those that it had seen it says nothing when it goes away in good order.
    reason == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// Nobody says so over HTTP/1.
#[cfg(not(feature = "grpc"))]
fn is_untouched(_: &(dyn StdError + 'static)) -> bool {
    false
}

fn describe_root(error: &(dyn StdError + 'static)) -> String {
    let root = root(error);
    root.downcast_ref::<io::Error>().map_or_else(|| root.to_string(), describe)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// The cause of all causes.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

/// To the millisecond, for people.
pub(crate) fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_we_lack_ourselves_is_no_fault_of_the_instance() {
        let kind = |number| Failure::unconnected(&io::Error::from_raw_os_error(number), None).kind;
        for (number, what) in [(12, "ENOMEM"), (23, "ENFILE"), (24, "EMFILE"), (99, "EADDRNOTAVAIL"), (105, "ENOBUFS")]
        {
            assert_ne!(kind(number), Kind::Instance, "{what}");
        }
        for (number, what) in [(111, "ECONNREFUSED"), (110, "ETIMEDOUT"), (113, "EHOSTUNREACH")] {
            assert_eq!(kind(number), Kind::Instance, "{what}");
        }
    }

    #[test]
    fn a_limit_is_named_where_it_is_ours() {
        let detail = |limit| Failure::unconnected(&io::Error::from(io::ErrorKind::TimedOut), limit).detail;
        assert_eq!(detail(Some(CONNECT_TIMEOUT)), "no connection within 500ms");
        assert_eq!(detail(None), "no connection in time", "of a client of the user's own");
    }
}
