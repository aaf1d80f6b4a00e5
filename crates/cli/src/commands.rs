//! One module per command. Each connects, asks, and prints the answer.

pub(crate) mod completions;
pub(crate) mod deregister;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod finding;
pub(crate) mod get;
pub(crate) mod graph;
pub(crate) mod list;
pub(crate) mod namespaces;
pub(crate) mod register;
pub(crate) mod render;
pub(crate) mod renew;
pub(crate) mod status;
pub(crate) mod update;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod why;

use std::io::{self, Write};

use roundsman::{Builder, Discovery};

use crate::{
    args::{ClientArgs, Shape},
    exit::Failure,
    output::printable,
};

/// Connects as the flags say.
async fn connect<O: Shape>(args: &ClientArgs<O>) -> Result<Discovery, Failure> {
    Ok(builder(args).connect().await?)
}

/// The same, without waiting for a server.
fn connect_lazy<O: Shape>(args: &ClientArgs<O>) -> Result<Discovery, Failure> {
    Ok(builder(args).connect_lazy()?)
}

fn builder<O: Shape>(args: &ClientArgs<O>) -> Builder {
    Discovery::builder().servers(args.server()).namespace(args.namespace().as_str())
}

/// Says on stderr what is no part of the answer.
fn note(text: &str) {
    // With stderr closed there is nobody left to tell.
    drop(writeln!(io::stderr(), "roundsman: {}", printable(text)));
}
