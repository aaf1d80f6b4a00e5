//! The command line of `product`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use roundsman::{Address, Invalid, Namespace};

/// Example service: product details and stock.
#[derive(Clone, Debug, Parser)]
#[command(name = "product", version)]
pub struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,

    /// The address that others reach this instance at [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Address>,

    /// Discovery servers to register with
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROUNDSMAN_SERVER",
        default_value = "127.0.0.1:5555",
        value_delimiter = ','
    )]
    pub discovery: Vec<Address>,

    /// The namespace to register in
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["product"], args].concat()).unwrap()
    }

    #[test]
    fn several_servers_may_be_named() {
        let args = parse(&["--discovery", "a:1,b:2"]);
        assert_eq!(args.discovery, ["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
        assert!(Args::try_parse_from(["product", "--discovery", "a:0"]).is_err());
    }

    #[test]
    fn what_nobody_can_reach_is_not_advertised() {
        let args = parse(&["--listen", "0.0.0.0:7070"]);
        assert_eq!(args.advertised(args.listen).unwrap_err().field, "--advertise");
        let args = parse(&["--listen", "0.0.0.0:7070", "--advertise", "product:7070"]);
        assert_eq!(args.advertised(args.listen).unwrap().to_string(), "product:7070");
        assert_eq!(parse(&[]).advertised("127.0.0.1:4711".parse().unwrap()).unwrap().to_string(), "127.0.0.1:4711");
    }
}
