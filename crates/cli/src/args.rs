//! The commands. What each takes stands beside what it does, in `commands/`; what they share, below.

pub(crate) mod client;
pub(crate) mod filter;
pub(crate) mod values;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use roundsman::Namespace;
use roundsman_discovery::ServeArgs;

pub(crate) use self::{
    client::{ClientArgs, Data, Globals, Output, Shape},
    filter::Filter,
};
use crate::{
    commands::{
        completions::CompletionsArgs, deregister::DeregisterArgs, drain::DrainArgs, events::EventsArgs, exec::ExecArgs,
        get::GetArgs, graph::GraphArgs, list::ListArgs, namespaces::NamespacesArgs, register::RegisterArgs,
        render::RenderArgs, renew::RenewArgs, status::StatusArgs, update::UpdateArgs, wait::WaitArgs, watch::WatchArgs,
        why::WhyArgs,
    },
    exit::Failure,
};

/// Service discovery that makes its rounds.
///
/// Services register a name, an address and a health path. Roundsman visits each /health every five seconds, stops
/// handing out whoever no longer answers, and tells everyone who is watching.
#[derive(Debug, Parser)]
#[command(name = "roundsman", version = env!("ROUNDSMAN_VERSION"), after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
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
    /// Wait until enough instances of a service are there
    Wait(WaitArgs),
    /// Register an instance of a program that is already running
    ///
    /// Prints the instance's id and ends: nothing has to keep running. While the program does not pass its visits it is not
    /// handed out; it is back when it does, and forgotten after --forget-after. (A program that uses the client library
    /// registers itself, and registers again when it has to.)
    Register(Box<RegisterArgs>),
    /// Change what an instance is registered with, and leave the rest as it is
    Update(Box<UpdateArgs>),
    /// Say that an instance with a ttl check is alive
    Renew(RenewArgs),
    /// Take an instance out for good
    Deregister(DeregisterArgs),
    /// Stop handing an instance out, while it stays registered
    Drain(DrainArgs),
    /// Run a command that finds the address of an instance in its environment
    Exec(ExecArgs),
    /// Keep a file made from live lists, such as a proxy's configuration, up to date
    Render(Box<RenderArgs>),
    /// Show the whole server at this moment: store, rounds, brake, services, latest events and removals
    Status(StatusArgs),
    /// Show all namespaces (tenants) of the server
    Namespaces(NamespacesArgs),
    /// Show which service calls which, as far as callers say who they are
    Graph(GraphArgs),
    /// Show what happened, newest first: who came, was evicted, drained, left, why, and who asked for it
    #[command(visible_alias = "history")]
    Events(EventsArgs),
    /// Tell why an instance is in its state: everything that led to it, in order
    Why(WhyArgs),
    /// Print a completion script for a shell, such as `source <(roundsman completions bash)`
    Completions(CompletionsArgs),
}

// === impl Cli ===

impl Cli {
    /// Reads the command line, and notes which of the flags before the command stand on it: variables count for less.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut matches = Self::command().try_get_matches_from(words)?;
        let typed = Globals::typed(&matches);
        let mut cli = Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Self::command()))?;
        cli.globals.typed = typed;
        Ok(cli)
    }

    /// The command, with what was said before its name taken in, and the namespace that it is about.
    pub(crate) fn into_command(self) -> Result<(Command, Namespace), Failure> {
        let Self { globals, mut command } = self;
        let namespace = match &mut command {
            Command::Serve(_) | Command::Completions(_) => globals.unheard()?,
            Command::Get(args) => args.client.fill(&globals)?,
            Command::List(args) => args.client.fill(&globals)?,
            Command::Watch(args) => args.client.fill(&globals)?,
            Command::Register(args) => args.client.fill(&globals)?,
            Command::Deregister(args) => args.client.fill(&globals)?,
            Command::Drain(args) => args.client.fill(&globals)?,
            Command::Status(args) => args.client.fill(&globals)?,
            Command::Graph(args) => args.client.fill(&globals)?,
            Command::Events(args) => args.client.fill(&globals)?,
            Command::Wait(args) => args.client.fill(&globals)?,
            Command::Update(args) => args.client.fill(&globals)?,
            Command::Renew(args) => args.client.fill(&globals)?,
            Command::Render(args) => args.client.fill(&globals)?,
            Command::Exec(args) => args.client.fill(&globals)?,
            Command::Namespaces(args) => args.client.fill(&globals)?,
            Command::Why(args) => args.client.fill(&globals)?,
        };
        Ok((command, namespace))
    }
}

#[cfg(test)]
mod tests {
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
}
