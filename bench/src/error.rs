//! What can go wrong with a measurement.

use std::time::Duration;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A peer's program is not there: its row says so, the others go on.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// Something that should have worked did not.
    #[error("{what}: {cause}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed, causes included.
        cause: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
}

/// Says what was tried when something fails.
pub(crate) trait Context<T> {
    fn context(self, what: impl Into<String>) -> Result<T>;
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(what: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), cause: cause.into() }
    }
}

// === impl Context ===

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| {
            let mut cause = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                cause = format!("{cause}: {error}");
                source = error.source();
            }
            Failure::Failed { what: what.into(), cause }
        })
    }
}
