//! Why a server does not start, or stopped.

use std::{io, net::SocketAddr};

use crate::config::Mistakes;

/// Why a server does not start, or stopped. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong: exit code 2.
    #[error("{0}")]
    Config(#[from] Mistakes),
    /// A door cannot be opened.
    #[error("cannot listen on {addr} (--{door}): {source}")]
    Bind {
        /// `rpc` or `http`.
        door: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be used, and waiting would not help.
    #[error("cannot use the store {location}: {reason}")]
    Store {
        /// Which one.
        location: String,
        /// Why.
        reason: String,
    },
    /// The ready file cannot be written.
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile {
        /// Which one.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A part that must run for as long as the server does has ended.
    #[error("the {0} has stopped, which it never should; this is a bug, please report it with the log")]
    PartEnded(&'static str),
    /// The process asked the operating system for something and did not get it.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl ServeError {
    /// The exit code of the process: 2 for a wrong configuration, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            _ => 1,
        }
    }
}
