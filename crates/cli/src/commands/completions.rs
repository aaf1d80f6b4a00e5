//! `roundsman completions SHELL`

use std::path::Path;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, env::Shells};

use crate::{args::Cli, complete::VARIABLE, exit::Failure, output::Screen};

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
    /// A script that knows commands and flags, and never asks a server
    #[arg(long = "static")]
    fixed: bool,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: clap_complete panics when the reader of its output has gone.
    let mut script = Vec::new();
    let asking = Shells::builtins();
    match asking.completer(&args.shell.to_string()).filter(|_| !args.fixed) {
        Some(shell) => shell.write_registration(VARIABLE, "roundsman", "roundsman", &program(), &mut script)?,
        None => clap_complete::generate(args.shell, &mut Cli::command(), "roundsman", &mut script),
    }
    Screen::stdout().raw(&script)
}

/// How the shell calls us: by name where we were found by name.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let by_path = Path::new(&called).components().count() > 1;
    let path = by_path.then(std::env::current_exe).and_then(Result::ok);
    path.map_or_else(|| "roundsman".to_owned(), |path| path.to_string_lossy().into_owned())
}
