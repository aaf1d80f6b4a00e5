//! The command line of `order`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use roundsman::{Address, Invalid, Namespace};

/// Example service: purchases, through whatever product instance discovery names.
#[derive(Clone, Debug, Parser)]
#[command(name = "order", version)]
pub struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6060")]
    pub listen: SocketAddr,

    /// The address that others reach this instance at [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Address>,

    /// Discovery servers to register with and to find products by
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROUNDSMAN_SERVER",
        default_value = "127.0.0.1:5555",
        value_delimiter = ','
    )]
    pub discovery: Vec<Address>,

    /// The namespace to register in and to buy in
    #[arg(long, value_name = "NAME", env = "ROUNDSMAN_NAMESPACE", default_value = "default")]
    pub namespace: Namespace,

    /// Write the address it really listens on to this file, as JSON, once it serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,

    /// Serve nothing; ask the one that listens for its health, and exit with 0 or 1 (for container health checks)
    #[arg(long)]
    pub probe: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

// === impl Args ===

impl Args {
    /// The listen address, with some port where the real one is not known yet.
    #[must_use]
    pub fn listen_or_any_port(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.listen.port().max(1))
    }

    /// The address to register: the one given, or the one it listens on.
    ///
    /// # Errors
    /// When it listens everywhere and was not told which of its addresses others use.
    pub fn advertised(&self, listening: SocketAddr) -> Result<Address, Invalid> {
        match &self.advertise {
            Some(address) => Ok(address.clone()),
            None => Address::try_from(listening).map_err(|Invalid { rule, .. }| {
                Invalid::new("--advertise", format!("is needed with --listen {}: {rule}", self.listen))
            }),
        }
    }
}
