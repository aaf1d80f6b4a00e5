//! Why there is no answer, told apart by what the caller does about it.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use roundsman_protocol::{Instance, ServiceName, Trouble, time};

use super::failure::rounded;

/// Why a call has no answer, or none that is of use.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// match discovery.http("product").post("/sale").send().await {
///     Ok(answer) => println!("{}", answer.status()),
///     Err(error) if error.is_not_found() => println!("nobody sells at the moment"),
///     Err(error) if !error.maybe_sent() => println!("nothing was sold, try again: {error}"),
///     Err(error) => println!("it may have been sold: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service cannot be found: nobody registered it ([`Error::is_not_found`]), no discovery server could be
    /// reached and no list is at hand, its name breaks a rule, or the client is closed.
    #[error(transparent)]
    Discovery(#[from] crate::Error),
    /// None of its instances can be called at the moment. Try again later, unless it is what the call asks for that leaves
    /// nobody: a selection, a host, a subset, or those to be avoided.
    #[error("no instance of `{service}` can be called at the moment{}", besides(*.avoided))]
    NobodyThere {
        /// The service.
        service: ServiceName,
        /// How many instances were to be [avoided](super::Request::avoiding).
        avoided: usize,
    },
    /// What was to be sent is no request. Asking again cannot help.
    #[error("{0}")]
    Invalid(String),
    /// The time was up.
    #[error("`{service}` did not answer within {}{}", time::display(rounded(*.after)), after_tries(.tries))]
    Deadline {
        /// The service.
        service: ServiceName,
        /// How long the call took.
        after: Duration,
        /// What each try came to.
        tries: Vec<Try>,
    },
    /// Every try failed, or the first did and must not be repeated.
    #[error("`{service}` did not answer{}", after_tries(.tries))]
    Failed {
        /// The service.
        service: ServiceName,
        /// What each try came to.
        tries: Vec<Try>,
    },
    /// The answer is longer than [allowed](super::Request::body_limit).
    #[error("{} of `{}` at {} answered with more than {limit} bytes", .instance.id, .instance.name, .instance.address)]
    TooLarge {
        /// Who answered.
        instance: Arc<Instance>,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The answer is not what [`Response::json`](super::Response::json) was to make of it.
    #[error("{} of `{}` at {} answered {status} with what was not expected: {detail}", .instance.id, .instance.name, .instance.address)]
    Unreadable {
        /// Who answered.
        instance: Arc<Instance>,
        /// The status of its answer.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// The body of an answer that was [streamed](super::Streamed) broke off, or the time of its call was up.
    #[error("{} of `{}` at {} answered {status}, and the body broke off: {detail}", .instance.id, .instance.name, .instance.address)]
    BodyBroken {
        /// Who answered.
        instance: Arc<Instance>,
        /// The status of its answer.
        status: StatusCode,
        /// What kind of failure it was: [`Trouble::Timeout`] where the time was up.
        trouble: Trouble,
        /// What happened, in words.
        detail: String,
    },
    /// The status of the answer is one of an error; made by
    /// [`Response::error_for_status`](super::Response::error_for_status) alone.
    #[error("{} of `{}` at {} answered {status}", .instance.id, .instance.name, .instance.address)]
    Status {
        /// Who answered.
        instance: Arc<Instance>,
        /// The status.
        status: StatusCode,
    },
}

/// A try that failed.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// if let Err(error) = discovery.http("product").get("/").send().await {
///     for failed in error.tries() {
///         println!("{} at {}: {}", failed.instance.id, failed.instance.address, failed.detail);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Try {
    /// The instance that was called.
    pub instance: Arc<Instance>,
    /// What kind of failure it was.
    pub trouble: Trouble,
    /// What happened, in words.
    pub detail: String,
    /// Whether the request may have reached the instance.
    pub maybe_sent: bool,
}

// === impl Error ===

impl Error {
    /// Whether nobody is there: no such service, or none of its instances can be called at the moment.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Discovery(error) => error.is_not_found(),
            Self::NobodyThere { .. } => true,
            _ => false,
        }
    }

    /// Whether an instance may have received the request, and carried it out. `false` is certain.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let answer = discovery.http("product").post("/sale").send().await;
    /// if let Err(error) = answer && error.maybe_sent() {
    ///     if let Some(instance) = error.instance() {
    ///         println!("ask {} at {} what became of the sale", instance.id, instance.address);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn maybe_sent(&self) -> bool {
        match self {
            // A call that `close` broke off may have been anywhere.
            Self::Discovery(error) => matches!(error, crate::Error::Closed),
            Self::NobodyThere { .. } | Self::Invalid(_) => false,
            Self::Deadline { tries, .. } | Self::Failed { tries, .. } => tries.iter().any(|tried| tried.maybe_sent),
            Self::TooLarge { .. } | Self::Unreadable { .. } | Self::BodyBroken { .. } | Self::Status { .. } => true,
        }
    }

    /// The instance whose try ended last, if any was called.
    #[must_use]
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Discovery(_) | Self::NobodyThere { .. } | Self::Invalid(_) => None,
            Self::Deadline { tries, .. } | Self::Failed { tries, .. } => tries.last().map(|tried| &tried.instance),
            Self::TooLarge { instance, .. }
            | Self::Unreadable { instance, .. }
            | Self::BodyBroken { instance, .. }
            | Self::Status { instance, .. } => Some(instance),
        }
    }

    /// What each try came to, in the order in which they ended. One that was still under way at the end is not among them.
    #[must_use]
    pub fn tries(&self) -> &[Try] {
        match self {
            Self::Deadline { tries, .. } | Self::Failed { tries, .. } => tries,
            _ => &[],
        }
    }

    /// What cannot be sent, and why.
    pub(crate) fn invalid(what: &str, error: &dyn StdError) -> Self {
        let mut message = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::Invalid(message)
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.instance.id, self.instance.address, self.detail)
    }
}

fn besides(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " besides the one to be avoided".to_owned(),
        _ => format!(" besides the {count} to be avoided"),
    }
}

fn after_tries(tries: &[Try]) -> String {
    let all: Vec<_> = tries.iter().map(ToString::to_string).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ")) }
}
