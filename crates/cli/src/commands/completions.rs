//! `roundsman completions SHELL`

use clap::{Args, CommandFactory};

use crate::{args::Cli, exit::Failure, output::Screen};

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: clap_complete panics when the reader of its output has gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "roundsman", &mut script);
    Screen::stdout().raw(&script)
}
