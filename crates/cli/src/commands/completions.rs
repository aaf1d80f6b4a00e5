//! `roundsman completions SHELL`

use clap::CommandFactory;

use crate::{args::Cli, exit::Failure, output::Screen};

pub(crate) fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    // Into memory first: clap_complete panics when the reader of its output has gone.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "roundsman", &mut script);
    Screen::stdout().raw(&script)
}
