//! Commands, flags and their twins in the environment.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use roundsman::{Address, CheckKind, DEFAULT_SERVER, InstanceId, Namespace, ServiceName, Timestamp, protocol::time};
use roundsman_discovery::ServeArgs;

/// Service discovery that makes its rounds.
///
/// Services register a name, an address and a health path. Roundsman visits each /health every five seconds, stops
/// handing out whoever no longer answers, and tells everyone who is watching.
#[derive(Debug, Parser)]
#[command(name = "roundsman", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  roundsman serve                                     a server on this machine
  roundsman register --name product --address 127.0.0.1:7070
                                                      a program that runs already
  roundsman list product                              its instances and their state
  curl \"http://$(roundsman get product)/product/aaa\"  one of them that is alive

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 server unreachable.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a discovery server until it is told to stop
    Serve(Box<ServeArgs>),
    /// Print the address of one passing instance of a service
    Get(GetArgs),
    /// Show all services, or the instances of one, with their status
    List(ListArgs),
    /// Print a line for each change, until interrupted
    Watch(WatchArgs),
    /// Register an instance of a program that is already running
    ///
    /// Prints the instance's id and ends: it stays registered for as long as it passes its visits. (A program that uses the
    /// client library registers itself, and registers again when it has to.)
    Register(Box<RegisterArgs>),
    /// Take an instance out for good
    Deregister(DeregisterArgs),
    /// Stop handing an instance out, while it stays registered
    Drain(DrainArgs),
    /// Show the whole server at this moment: store, rounds, brake, services, latest events
    Status(StatusArgs),
    /// Show which service calls which, as far as callers say who they are
    Graph(GraphArgs),
    /// Show what happened, newest first: who came, was evicted, drained, left, why, and who asked for it
    History(HistoryArgs),
    /// Print a completion script for a shell, such as `source <(roundsman completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What every command that asks a server takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct ClientArgs<O: Shape = Output> {
    /// The server, or several with commas between them
    #[arg(long, env = "ROUNDSMAN_SERVER", value_name = "HOST:PORT", default_value = DEFAULT_SERVER)]
    pub(crate) server: String,
    /// The namespace (tenant) that the command is about
    #[arg(long, env = "ROUNDSMAN_NAMESPACE", value_name = "NAMESPACE", default_value = "default", value_parser = Namespace::try_new)]
    pub(crate) namespace: Namespace,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: O,
}

/// How a command can print its answer.
pub(crate) trait Shape: ValueEnum + Default + Send + Sync + 'static {}

impl<T: ValueEnum + Default + Send + Sync + 'static> Shape for T {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphOutput {
    /// For people
    #[default]
    #[value(alias = "table")]
    Tree,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The service
    #[arg(value_parser = ServiceName::try_new)]
    pub(crate) name: ServiceName,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show this service's instances, also those on probation
    #[arg(value_parser = ServiceName::try_new)]
    pub(crate) name: Option<ServiceName>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Follow this service only
    #[arg(value_parser = ServiceName::try_new)]
    pub(crate) name: Option<ServiceName>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// The service's name
    #[arg(long, value_name = "NAME", value_parser = ServiceName::try_new)]
    pub(crate) name: ServiceName,
    /// Where callers, and the rounds, reach the instance
    #[arg(long, value_name = "HOST:PORT", value_parser = |text: &str| text.parse::<Address>())]
    pub(crate) address: Address,
    /// The path to visit (http and https) [default: /health]
    #[arg(long, value_name = "PATH")]
    pub(crate) health: Option<String>,
    /// How to visit: http, https, tcp, ttl (the program itself renews over RPC), none (always passing)
    #[arg(long, value_name = "KIND", default_value = "http", value_parser = check_kind, hide_possible_values = true)]
    pub(crate) check: CheckKind,
    /// Longest silence of an instance with a ttl check, such as 30s
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) ttl: Option<Duration>,
    /// Time between two visits [default: the server's, 5s]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) interval: Option<Duration>,
    /// Time that a visit may take [default: the server's, 1s]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) timeout: Option<Duration>,
    /// What the answer must carry, written `name: value`, so that another program at its address does not pass for it
    #[arg(long, value_name = "FIELD", conflicts_with = "expect_body")]
    pub(crate) expect_header: Option<String>,
    /// A text that the body of the answer must have
    #[arg(long, value_name = "TEXT")]
    pub(crate) expect_body: Option<String>,
    /// The instance's id [default: the name and ten random characters]
    #[arg(long, value_parser = InstanceId::try_new)]
    pub(crate) id: Option<InstanceId>,
    /// A word to filter by; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// A metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) meta: Vec<(String, String)>,
    /// Where it runs
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// Its share of lookups, relative to the service's other instances
    #[arg(long, value_name = "N", default_value_t = roundsman::protocol::limits::DEFAULT_WEIGHT)]
    pub(crate) weight: u32,
    /// Which version it is
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DeregisterArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new)]
    pub(crate) id: InstanceId,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new)]
    pub(crate) id: InstanceId,
    /// Hand it out again
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs<GraphOutput>,
}

#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Only of this service
    #[arg(value_parser = ServiceName::try_new)]
    pub(crate) name: Option<ServiceName>,
    /// Only of this instance
    #[arg(long, value_name = "ID", value_parser = InstanceId::try_new)]
    pub(crate) instance: Option<InstanceId>,
    /// Not before: so long ago, such as 1h, or a time such as 2026-11-21T19:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    pub(crate) since: Option<Moment>,
    /// Not after, written as --since
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    pub(crate) until: Option<Moment>,
    /// At most so many events
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A moment, as somebody who looks back says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// At this time.
    At(Timestamp),
}

impl Moment {
    fn read(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let mistake =
            || "write how long ago, such as 30m or 1h, or a time in UTC such as 2026-11-21T19:00:00Z".to_owned();
        time::parse(text).map(Self::Ago).map_err(|_| mistake())
    }

    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => {
                let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(millis))
            }
            Self::At(at) => at,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn check_kind(text: &str) -> Result<CheckKind, String> {
    let kinds = [CheckKind::Http, CheckKind::Https, CheckKind::Tcp, CheckKind::Ttl, CheckKind::None];
    let found = kinds.into_iter().find(|kind| kind.to_string() == text);
    found.ok_or_else(|| "must be http, https, tcp, ttl or none".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typing_errors_are_answered_with_what_was_meant() {
        let error = Cli::try_parse_from(["roundsman", "lst"]).unwrap_err().to_string();
        assert!(error.contains("'list'"), "{error}");
        let error = Cli::try_parse_from(["roundsman", "get", "a b"]).unwrap_err().to_string();
        assert!(error.contains("must be 1 to 63 characters"), "{error}");
        let error = Cli::try_parse_from(["roundsman", "register", "--name", "a", "--address", "a"]).unwrap_err();
        assert!(error.to_string().contains("HOST:PORT such as 10.0.0.7:7070"), "{error}");
    }

    #[test]
    fn moments_are_ages_or_times() {
        let now: Timestamp = "2026-11-21T19:30:00Z".parse().unwrap();
        let before = |text| Moment::read(text).unwrap().before(now).to_string();
        assert_eq!(before("1h"), "2026-11-21T18:30:00.000Z");
        assert_eq!(before("2026-11-20T00:00:00Z"), "2026-11-20T00:00:00.000Z");
        assert_eq!(before("9999y"), "1970-01-01T00:00:00.000Z");
        assert!(Moment::read("yesterday").unwrap_err().contains("such as 30m"));
    }
}
