//! The command line that all services have, and that of each one's own.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Command, FromArgMatches, Parser, ValueEnum, error::ErrorKind};
use roundsman_protocol::{Address, Invalid, Namespace};

/// What every service takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Standard {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: SocketAddr,

    /// The address that others reach this instance at [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) advertise: Option<Address>,

    /// Discovery servers to register with and to find others by
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROUNDSMAN_SERVER",
        default_value = "127.0.0.1:5555",
        value_delimiter = ','
    )]
    pub(super) discovery: Vec<Address>,

    /// The namespace to register in and to find others in
    #[arg(long, value_name = "NAME", env = "ROUNDSMAN_NAMESPACE", default_value = "default")]
    pub(super) namespace: Namespace,

    /// Write the address it really listens on to this file, as JSON, once it serves
    #[arg(long, value_name = "PATH")]
    pub(super) ready_file: Option<PathBuf>,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) log_format: LogFormat,

    /// Serve nothing; ask the one that listens for its health, and exit with 0 or 1 (for container health checks)
    #[arg(long)]
    pub(super) probe: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Parser)]
struct CommandLine<F: Args> {
    #[command(flatten)]
    standard: Standard,
    #[command(flatten)]
    own: F,
}

/// The command line of a service.
pub(super) fn command<F: Args>(
    name: &'static str,
    port: u16,
    about: &'static str,
    version: Option<&'static str>,
) -> Command {
    let listen = format!("127.0.0.1:{port}");
    let command = <CommandLine<F> as clap::CommandFactory>::command().name(name).about(about);
    let command = command.mut_arg("listen", |arg| arg.required(false).default_value(listen));
    match version {
        Some(version) => command.version(version),
        None => command,
    }
}

/// Reads it.
///
/// # Errors
/// Wrong usage, and what `--help` and `--version` print.
pub(super) fn parse<F: Args>(
    mut command: Command,
    args: impl IntoIterator<Item: Into<OsString> + Clone>,
) -> Result<(Standard, F), clap::Error> {
    let matches = command.try_get_matches_from_mut(args)?;
    let CommandLine { standard, own } =
        CommandLine::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if !standard.probe {
        let checked = standard.advertised(standard.listen_or_any_port());
        checked.map_err(|rule| command.error(ErrorKind::MissingRequiredArgument, rule))?;
    }
    Ok((standard, own))
}

// === impl Standard ===

impl Standard {
    /// The listen address, with some port where the real one is not known yet.
    fn listen_or_any_port(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.listen.port().max(1))
    }

    /// The address to register: the one given, or the one it listens on.
    ///
    /// # Errors
    /// When it listens everywhere and was not told which of its addresses others use.
    pub(super) fn advertised(&self, listening: SocketAddr) -> Result<Address, Invalid> {
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

    #[derive(Args)]
    struct Flags {
        /// How many
        #[arg(long)]
        stock: Option<u32>,
    }

    fn parse<F: Args>(args: &[&str]) -> Result<(Standard, F), clap::Error> {
        let command = command::<F>("product", 7070, "Example", Some("1.2.3"));
        super::parse::<F>(command, [&["product"], args].concat())
    }

    #[test]
    fn the_default_port_is_the_services_own() {
        let (standard, ()) = parse(&[]).unwrap();
        assert_eq!(standard.listen.to_string(), "127.0.0.1:7070");
        let help = parse::<Flags>(&["--help"]).err().unwrap().to_string();
        for part in ["Example", "[default: 127.0.0.1:7070]", "--stock <STOCK>", "How many"] {
            assert!(help.contains(part), "{part} is missing in {help}");
        }
        assert_eq!(parse::<()>(&["--version"]).err().unwrap().to_string(), "product 1.2.3\n");
    }

    #[test]
    fn flags_of_its_own_stand_beside_the_others() {
        let (standard, flags) = parse::<Flags>(&["--stock", "3", "--listen", "127.0.0.1:1"]).unwrap();
        assert_eq!((standard.listen.port(), flags.stock), (1, Some(3)));
        assert_eq!(parse::<()>(&["--stock", "3"]).err().unwrap().exit_code(), 2);
    }

    #[test]
    fn several_servers_may_be_named() {
        let (standard, ()) = parse(&["--discovery", "a:1,b:2"]).unwrap();
        assert_eq!(standard.discovery, ["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
        assert!(parse::<()>(&["--discovery", "a:0"]).is_err());
    }

    #[test]
    fn what_nobody_can_reach_is_not_advertised() {
        let refused = parse::<()>(&["--listen", "0.0.0.0:7070"]).err().unwrap();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--advertise: is needed with --listen 0.0.0.0:7070"), "{refused}");
        let (standard, ()) = parse(&["--listen", "0.0.0.0:7070", "--advertise", "product:7070"]).unwrap();
        assert_eq!(standard.advertised(standard.listen).unwrap().to_string(), "product:7070");
        let (standard, ()) = parse(&[]).unwrap();
        assert_eq!(standard.advertised("127.0.0.1:4711".parse().unwrap()).unwrap().to_string(), "127.0.0.1:4711");
        // A probe advertises nothing.
        assert!(parse::<()>(&["--listen", "0.0.0.0:7070", "--probe"]).is_ok());
    }
}
