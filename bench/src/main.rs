//! Measures Roundsman and its peers side by side, in one run, and says which goals were reached.
//!
//! The servers under test are the real release binary and the peers' own binaries, each a process of its own on
//! a free loopback port. This program only makes load and reads clocks; what it starts, it stops, also when it fails.

mod args;
mod children;
mod error;
mod herd;
mod isolated;
mod kernel;
mod load;
mod machine;
mod pace;
mod peers;
mod plan;
mod plot;
mod population;
mod process;
mod raw;
mod report;
mod rows;
mod rpc;
mod series;
mod server;
mod soak;
mod stats;
mod watchers;
mod wire;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Args, Child, Command},
    error::{Context, Failure, Result},
    plan::Plan,
    report::Report,
};

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR).init();
    let result = match &args.command {
        Some(Command::Child(child)) => run_child(child).map(|()| true),
        Some(Command::Soak(args)) => run(soak::run(args)),
        None => run(measure(&args)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The helpers are single-threaded: they share the machine with what is measured.
fn run_child(child: &Child) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(children::run(child))
}

/// Runs to the end, or to a signal: `false` then.
fn run(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
        tokio::select! {
            // Leaving drops what was under way, and with it every process that was started.
            _ = terminate.recv() => Ok(false),
            _ = interrupt.recv() => Ok(false),
            result = work => result,
        }
    })
}

/// Whether every row could be measured. A goal that was missed is a result, not a failure.
async fn measure(args: &Args) -> Result<bool> {
    if let Some(program) = &args.server {
        server::choose(program.clone());
    }
    if let Some(program) = &args.against {
        server::compare_with(program.clone());
    }
    let plan = Plan::new(args.quick);
    let mut report = Report::new(&plan, machine::Machine::look());
    let complete = rows::run(&plan, &args.only, &mut report).await;
    report.print();
    // A part of the table, or figures taken in a hurry, must not replace those of a full run.
    let whole = args.only.is_empty() && !args.quick;
    let path = args.output.clone().or_else(|| whole.then(|| "bench/results.md".into()));
    if let Some(path) = path {
        write(&path, &report.markdown())?;
    }
    let path = args.plot.clone().or_else(|| whole.then(|| "docs/images/costs.svg".into()));
    if let Some(path) = path {
        // Half of the curves would look like a result.
        let page =
            report.plot().ok_or_else(|| Failure::new("plotting", "`change` and `namespaces` were not measured"))?;
        write(&path, &page)?;
    }
    Ok(complete)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).context(format!("making {}", folder.display()))?;
    }
    std::fs::write(path, text).context(format!("writing {}", path.display()))?;
    report::say(&format!("written to {}", path.display()));
    Ok(())
}
