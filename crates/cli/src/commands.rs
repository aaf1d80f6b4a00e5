//! One module per command. Each connects, asks, and prints the answer.

pub(crate) mod completions;
pub(crate) mod deregister;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod graph;
pub(crate) mod list;
pub(crate) mod register;
pub(crate) mod status;
pub(crate) mod watch;

use std::io::{self, Write};

use roundsman::Discovery;

use crate::{
    args::{ClientArgs, Shape},
    exit::Failure,
};

/// Connects as the flags say.
async fn connect<O: Shape>(args: &ClientArgs<O>) -> Result<Discovery, Failure> {
    let builder = Discovery::builder().servers(args.server()).namespace(args.namespace().as_str());
    Ok(builder.connect().await?)
}

/// Says on stderr what is no part of the answer.
fn note(text: &str) {
    // With stderr closed there is nobody left to tell.
    drop(writeln!(io::stderr(), "roundsman: {text}"));
}
