//! How a command that failed ends: one line on stderr that says what to do, and an exit code.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use roundsman::{DiscoveryError, Error, Namespace, ServiceName};
use roundsman_discovery::ServeError;

use crate::output::{printable, short};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server could not be asked, or refused.
    #[error("{}{}", short(&.0.to_string()), hint(.0, &Namespace::default()))]
    Client(#[from] Error),
    /// The server did not start, or stopped.
    #[error("{}{}", .0, elsewhere(.0))]
    Serve(#[from] ServeError),
    /// The answer could not be printed.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The answer could not be written as JSON.
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The answer could not be written as YAML.
    #[error("cannot write the answer as YAML: {0}")]
    Yaml(String),
    /// The command was used in a way that it is not made for.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing. A command shows what there is.
    #[error("{what}; see {} {why}", typed(see, &Namespace::default()))]
    NotFound {
        /// What was looked for, and what was found of it.
        what: String,
        /// The command, without the program's name and the namespace.
        see: String,
        /// What it shows: `for the reasons`.
        why: &'static str,
    },
    /// It was done in part, or not at all.
    #[error("{0}")]
    Failed(String),
    /// The command that was to be run could not be.
    #[error("cannot run `{program}`: {error}")]
    NotRun {
        /// What was to be run.
        program: String,
        /// Why it was not.
        error: io::Error,
    },
    /// The operating system gave us no event loop.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

// === impl Failure ===

impl Failure {
    /// Nobody of this name is registered or on probation.
    pub(crate) fn no_such_service(service: ServiceName) -> Self {
        Self::Client(DiscoveryError::NoSuchService { service }.into())
    }

    /// Nobody has this name.
    pub(crate) fn unknown_name(what: String) -> Self {
        Self::NotFound { what, see: "list".to_owned(), why: "for the names that there are" }
    }

    /// Says what went wrong in this namespace, and gives the exit code. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn report(&self, namespace: &Namespace) -> ExitCode {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // With stderr closed there is nobody left to tell.
        drop(writeln!(io::stderr(), "roundsman: {}", printable(&self.told(namespace))));
        ExitCode::from(self.code())
    }

    /// The same as a sentence whose commands are about this namespace.
    fn told(&self, namespace: &Namespace) -> String {
        match self {
            Self::Client(error) => format!("{}{}", short(&error.to_string()), hint(error, namespace)),
            Self::NotFound { what, see, why } => format!("{what}; see {} {why}", typed(see, namespace)),
            _ => self.to_string(),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_not_found() => 3,
            Self::NotFound { .. } => 3,
            // As shells and env have it.
            Self::NotRun { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Self::NotRun { .. } => 126,
            Self::Client(Error::Invalid(_)) | Self::Usage(_) => 2,
            Self::Client(Error::Unreachable { .. } | Error::Refused { .. } | Error::Deadline { .. }) => 4,
            Self::Serve(error) => error.exit_code(),
            Self::Client(_) | Self::Output(_) | Self::Json(_) | Self::Yaml(_) | Self::Failed(_) | Self::Runtime(_) => 1,
        }
    }
}

/// A command to type, about this namespace.
pub(crate) fn typed(command: impl Display, namespace: &Namespace) -> String {
    if *namespace == Namespace::default() {
        return format!("`roundsman {command}`");
    }
    format!("`roundsman {command} --namespace {namespace}`")
}

/// Where nothing was found, unless that is where everybody looks first.
fn place(namespace: &Namespace) -> String {
    if *namespace == Namespace::default() { String::new() } else { format!(" in namespace `{namespace}`") }
}

/// What to do about an address that another program has.
fn elsewhere(error: &ServeError) -> String {
    match error {
        ServeError::Bind { door, .. } => format!("; name another with --{door}"),
        _ => String::new(),
    }
}

/// What to do about it, where the message does not say so already.
fn hint(error: &Error, namespace: &Namespace) -> String {
    match error {
        Error::Unreachable { .. } => {
            "; start one with `roundsman serve`, or name another with --server or ROUNDSMAN_SERVER".to_owned()
        }
        Error::Refused { .. } => "; name another with --server or ROUNDSMAN_SERVER".to_owned(),
        Error::Deadline { .. } => "; look at its log, or name another with --server or ROUNDSMAN_SERVER".to_owned(),
        Error::Discovery(DiscoveryError::NoSuchService { .. }) => {
            format!("{}; see {} for those that are", place(namespace), typed("list", namespace))
        }
        Error::Discovery(DiscoveryError::NonePassing { service, .. }) => {
            format!("; see {} for the reasons", typed(format_args!("list {service}"), namespace))
        }
        Error::Discovery(DiscoveryError::NotRegistered { .. }) => {
            let list = typed("list NAME", namespace);
            format!("{}; {list} shows the ids of a service's instances", place(namespace))
        }
        Error::Discovery(DiscoveryError::Blocked { id, .. }) => {
            format!("; {} lets it in again", typed(format_args!("deregister {id} --block 0s"), namespace))
        }
        Error::Discovery(DiscoveryError::LimitReached { .. }) => "; its operator can raise it".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_what_to_do() {
        let missing = Failure::no_such_service("product".parse().unwrap());
        assert_eq!(missing.code(), 3);
        assert_eq!(
            missing.to_string(),
            "no service named `product` is registered; see `roundsman list` for those that are"
        );
        assert_eq!(
            missing.told(&"shop".parse().unwrap()),
            "no service named `product` is registered in namespace `shop`; see `roundsman list --namespace shop` for those that \
             are"
        );
        assert_eq!(Failure::from(Error::from(DiscoveryError::ShuttingDown)).code(), 1);
        assert_eq!(Failure::from(Error::Closed).code(), 1);
        let invalid = roundsman::Invalid::new("weight", "must be between 1 and 10000, got 0");
        assert_eq!(Failure::from(Error::from(invalid)).code(), 2);
    }
}
