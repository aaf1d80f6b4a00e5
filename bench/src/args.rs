//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::rows::Name;

/// Measures Roundsman and its peers (etcd, redis, NATS, where they are installed) side by side.
///
/// Without arguments everything is measured in about a quarter of an hour; the table is written to bench/results.md.
#[derive(Debug, Parser)]
#[command(name = "roundsman-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Everything once, briefly and with less of it: shows that the benchmarks work, the figures mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only this; may be repeated
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) only: Vec<Name>,
    /// Write the table to this file [default: bench/results.md after a full run, otherwise nowhere]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the plot of costs against sizes to this file [default: docs/images/costs.svg after a full run, otherwise
    /// nowhere]; it needs `change` and `namespaces`
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Measure this server instead of the one beside this program
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) server: Option<PathBuf>,
    /// An older release: what issues changed is measured on it as well, and shown side by side
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What else this program does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks the promises for a long time under deaths, freezes, flaps and hostile callers
    Soak(Soak),
    /// A helper.
    #[command(flatten)]
    Child(Child),
}

/// A real server for a long time, under instances that die, freeze and flap, and under hostile callers
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) minutes: u32,
    /// Run this server instead of the one beside this program
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) server: Option<PathBuf>,
    /// Write the report to this file [default: bench/soak.md after an hour or more, otherwise nowhere]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What happens to whom, and when, follows from this number [default: a new one each time]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What this program starts of itself. Each of them ends when its standard input does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Child {
    /// The floor: a plain echo, and the least that a framed lookup can be
    #[command(hide = true)]
    Floor {
        /// Services to look up.
        #[arg(long)]
        services: u32,
        /// Bytes of an answer.
        #[arg(long)]
        answer: usize,
    },
    /// One instance that answers GET /health
    #[command(hide = true)]
    Target {
        /// The instance's id.
        #[arg(long)]
        id: String,
        /// Registers itself there.
        #[arg(long)]
        server: Option<SocketAddr>,
        #[command(flatten)]
        manner: Manner,
    },
    /// A caller that resolves services, and does nothing else
    #[command(hide = true)]
    Resolvers {
        /// Resolves there.
        #[arg(long)]
        server: SocketAddr,
        /// How many services, from number 0 on.
        #[arg(long)]
        services: u32,
        /// Resolvers of each.
        #[arg(long)]
        each: u32,
    },
    /// Very many instances that answer GET /health
    #[command(hide = true)]
    Listeners {
        /// The first one's number, which makes its address.
        #[arg(long)]
        first: u32,
        /// How many.
        #[arg(long)]
        count: u32,
        /// Their port.
        #[arg(long)]
        port: u16,
    },
    /// Very many instances that accept and never answer
    #[command(hide = true)]
    Hung {
        /// The first one's number, which makes its address.
        #[arg(long)]
        first: u32,
        /// How many.
        #[arg(long)]
        count: u32,
        /// Their port.
        #[arg(long)]
        port: u16,
    },
    /// One instance at an address of its own, to be killed, frozen, and made to answer 503
    #[command(hide = true)]
    Single {
        /// Where it listens.
        #[arg(long)]
        address: SocketAddr,
    },
}

/// What an instance is like, and how it answers calls; visits it answers at once, and well.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Manner {
    /// It answers after so many milliseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) delay: u64,
    /// What becomes of a PUT.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) puts: Puts,
    /// Where it runs.
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// How much it takes.
    #[arg(long)]
    pub(crate) weight: Option<u32>,
}

/// What becomes of a PUT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Puts {
    /// It is answered as everything is.
    #[default]
    Taken,
    /// Its connection is reset.
    Reset,
    /// It is answered with a 500.
    Refused,
}

// === impl Manner ===

impl Manner {
    /// As the command line says it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { delay, puts, zone, weight } = self;
        let puts = match puts {
            Puts::Taken => "taken",
            Puts::Reset => "reset",
            Puts::Refused => "refused",
        };
        let mut arguments = vec![format!("--delay={delay}"), format!("--puts={puts}")];
        arguments.extend(zone.iter().map(|zone| format!("--zone={zone}")));
        arguments.extend(weight.iter().map(|weight| format!("--weight={weight}")));
        arguments
    }
}
