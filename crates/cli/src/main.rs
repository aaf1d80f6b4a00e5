//! The command line of Roundsman: the server, and everything a person or a script asks of it.

mod args;
mod commands;
mod complete;
mod exit;
mod instances;
mod output;
mod table;
mod usage;
mod wrap;

use std::process::ExitCode;

use clap::{CommandFactory, error::ErrorKind};
use clap_complete::CompleteEnv;
use roundsman::Namespace;

use crate::{
    args::{Cli, Command},
    exit::Failure,
};

/// How many tasks a thread of the server runs before it asks again which sockets are ready. With tokio's default of 61, a
/// lookup that has arrived waits for as many heavy requests of others; what lookups cost does not change measurably.
const ASK_SOCKETS_EVERY: u32 = 2;

fn main() -> ExitCode {
    // A shell that asks what could be typed next gets its answer here, and the process ends.
    CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let mut namespace = Namespace::default();
    let done = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli.into_command().and_then(|(command, about)| {
            namespace = about;
            run(command)
        }),
        Err(error) => misused(&error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&namespace),
    }
}

/// Help and version are printed as they are, mistakes on one line.
fn misused(error: &clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.print()?),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.print()?;
            Err(Failure::Usage("name a command, such as `roundsman list`".to_owned()))
        }
        _ => {
            let cli = Cli::command();
            let commands: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
            Err(Failure::Usage(usage::sentence(error, std::env::args_os(), &commands)))
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    // Only the server has work for more than one core.
    let mut runtime = match command {
        Command::Serve(_) => serving(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    runtime.enable_all().build().map_err(Failure::Runtime)?.block_on(async {
        match command {
            Command::Serve(args) => Ok(Box::pin(roundsman_discovery::serve(*args)).await?),
            Command::Get(args) => commands::get::run(args).await,
            Command::List(args) => commands::list::run(args).await,
            Command::Watch(args) => commands::watch::run(args).await,
            Command::Register(args) => commands::register::run(*args).await,
            Command::Deregister(args) => commands::deregister::run(args).await,
            Command::Drain(args) => commands::drain::run(args).await,
            Command::Status(args) => commands::status::run(args).await,
            Command::Graph(args) => commands::graph::run(args).await,
            Command::Events(args) => commands::events::run(args).await,
            Command::Wait(args) => commands::wait::run(args).await,
            Command::Update(args) => commands::update::run(*args).await,
            Command::Renew(args) => commands::renew::run(args).await,
            Command::Render(args) => commands::render::run(*args).await,
            Command::Exec(args) => commands::exec::run(args).await,
            Command::Namespaces(args) => commands::namespaces::run(args).await,
            Command::Why(args) => commands::why::run(args).await,
            Command::Completions(args) => commands::completions::run(&args),
        }
    })
}

/// The runtime of the server.
fn serving() -> tokio::runtime::Builder {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.event_interval(ASK_SOCKETS_EVERY);
    runtime
}
