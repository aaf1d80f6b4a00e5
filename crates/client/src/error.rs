//! What can go wrong for a caller, told apart by what the caller does about it.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use roundsman_protocol::{DiscoveryError, Invalid, time};

/// Why a call did not do what it was asked to.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use roundsman::Error;
///
/// match discovery.get("product").await {
///     Ok(product) => println!("{}", product.address),
///     Err(error) if error.is_not_found() => println!("nobody sells at the moment"),
///     Err(error) if error.is_retryable() => println!("later, perhaps: {error}"),
///     Err(Error::Invalid(invalid)) => println!("mend {}: {}", invalid.field, invalid.rule),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server could be reached within the call's deadline. Reconnecting goes on in the background: try
    /// again later, or serve what you know.
    #[error("no discovery server could be reached (tried {tried})")]
    Unreachable {
        /// What each server's address led to.
        tried: Attempts,
    },
    /// A server was there and would not let us in, or was no discovery server. Someone must look: the address,
    /// the version or a limit is wrong.
    #[error("no discovery server let us in (tried {tried})")]
    Refused {
        /// What each server's address led to.
        tried: Attempts,
    },
    /// The server is connected but did not answer in time. The call may or may not have happened; all calls
    /// of this library may be repeated.
    #[error("{server} did not answer within {}", time::display(*.after))]
    Deadline {
        /// The server's address.
        server: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// What was asked breaks a rule. Asking again cannot help.
    #[error(transparent)]
    Invalid(Invalid),
    /// The server refused, and says why.
    #[error(transparent)]
    Discovery(DiscoveryError),
    /// The server failed while it worked on this call. A defect of the server; its log knows more.
    #[error("{server} failed: {detail}")]
    Failed {
        /// The server's address.
        server: Arc<str>,
        /// What it said.
        detail: String,
    },
    /// [`Discovery::close`](crate::Discovery::close) was called.
    #[error("this discovery client is closed")]
    Closed,
}

/// What came of trying each server, in the order in which they were tried.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// if let Err(roundsman::Error::Unreachable { tried }) = discovery.services().await {
///     for attempt in tried.iter() {
///         println!("{}: {}", attempt.server, attempt.reason);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts(Arc<[Attempt]>);

/// What came of trying one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its address, as it was configured.
    pub server: Arc<str>,
    /// What happened, such as `connection refused`.
    pub reason: String,
    /// Whether something answered there and would not let us in.
    pub refused: bool,
}

// === impl Error ===

impl Error {
    /// Whether the answer means "there is no such thing": no such service, none of its instances passing,
    /// no such instance.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Discovery(error) if error.is_not_found())
    }

    /// Whether the very same call may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Discovery(error) => error.is_retryable(),
            Self::Refused { .. } | Self::Invalid(_) | Self::Failed { .. } | Self::Closed => false,
        }
    }

    /// What a round through all servers came to.
    pub(crate) fn away(tried: Attempts) -> Self {
        if tried.iter().any(|attempt| attempt.refused) { Self::Refused { tried } } else { Self::Unreachable { tried } }
    }
}

impl From<DiscoveryError> for Error {
    fn from(error: DiscoveryError) -> Self {
        match error {
            DiscoveryError::Invalid(invalid) => Self::Invalid(invalid),
            error => Self::Discovery(error),
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// For arguments that are converted already.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

// === impl Attempts ===

impl Attempts {
    /// The attempts, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Attempt> {
        self.0.iter()
    }
}

impl FromIterator<Attempt> for Attempts {
    fn from_iter<I: IntoIterator<Item = Attempt>>(attempts: I) -> Self {
        Self(attempts.into_iter().collect())
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, attempt) in self.iter().enumerate() {
            let separator = if nth == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.server, attempt.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(server: &str, reason: &str, refused: bool) -> Attempt {
        Attempt { server: Arc::from(server), reason: reason.to_owned(), refused }
    }

    #[test]
    fn names_every_server_that_was_tried() {
        let down = attempt("127.0.0.1:5555", "connection refused", false);
        let error = Error::away([down.clone()].into_iter().collect());
        assert_eq!(
            error.to_string(),
            "no discovery server could be reached (tried 127.0.0.1:5555: connection refused)"
        );
        assert!(error.is_retryable());
        let error = Error::away([down, attempt("b:1", "it is full", true)].into_iter().collect());
        assert!(matches!(error, Error::Refused { .. }) && !error.is_retryable());
        assert!(error.to_string().ends_with("(tried 127.0.0.1:5555: connection refused; b:1: it is full)"));
    }

    #[test]
    fn a_refusal_of_the_server_is_told_apart() {
        let invalid = Invalid::new("name", "must be a label");
        assert_eq!(Error::from(DiscoveryError::Invalid(invalid.clone())), Error::Invalid(invalid));
        let id = "product-1".parse().unwrap();
        assert!(Error::from(DiscoveryError::NotRegistered { id }).is_not_found());
        assert!(Error::from(DiscoveryError::ShuttingDown).is_retryable());
    }
}
