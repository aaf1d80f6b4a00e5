//! One module per command. Each connects, asks, and prints the answer.

pub(crate) mod completions;
pub(crate) mod deregister;
pub(crate) mod drain;
pub(crate) mod get;
pub(crate) mod graph;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod register;
pub(crate) mod status;
pub(crate) mod watch;

use roundsman::{Discovery, ServiceSummary};

use crate::{
    args::{ClientArgs, Shape},
    exit::Failure,
    output::Style,
    table::{Cell, Table},
};

/// Connects as the flags say.
async fn connect<O: Shape>(args: &ClientArgs<O>) -> Result<Discovery, Failure> {
    let builder = Discovery::builder().servers(args.server.as_str()).namespace(args.namespace.as_str());
    Ok(builder.connect().await?)
}

/// Services and how many of their instances are in which status.
fn services_table(services: &[ServiceSummary]) -> Table {
    let mut table = Table::new(["SERVICE", "PASSING", "SUSPECT", "STARTING", "DRAINING", "EVICTED"]);
    for service in services {
        table.row([
            Cell::new(&service.name),
            Cell::count(service.passing, Style::Green),
            Cell::count(service.suspect, Style::Yellow),
            Cell::count(service.starting, Style::Plain),
            Cell::count(service.draining, Style::Cyan),
            Cell::count(service.evicted, Style::Red),
        ]);
    }
    table
}
