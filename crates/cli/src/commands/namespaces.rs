//! `roundsman namespaces`: all tenants of a server.
//!
//! Over RPC a server tells a caller of one namespace only. Its HTTP door shows operators all of it.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use roundsman::{Status, protocol::status::NamespaceStatus};

use crate::{
    args::{ClientArgs, Output, Shape},
    commands::{connect, note},
    exit::Failure,
    output::{Screen, Style},
    table::{Cell, Table},
};

/// How long the HTTP door may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub(crate) struct NamespacesArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs<Output>,
}

pub(crate) async fn run(args: NamespacesArgs) -> Result<(), Failure> {
    let status = connect(&args.client).await?.status().await?;
    let all = everything(&status, args.client.server()).await?;
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &all);
    }
    if args.client.output() == Output::Name {
        return all.iter().try_for_each(|namespace| screen.line(namespace.namespace.as_str()));
    }
    if all.is_empty() {
        note("nobody is registered in any namespace");
        return Ok(());
    }
    table(&all).print(&mut screen)
}

/// What the HTTP door says of the server that answered over RPC.
async fn everything(status: &Status, servers: &str) -> Result<Vec<NamespaceStatus>, Failure> {
    let door = status.doors.http.as_deref().and_then(|door| door.parse::<SocketAddr>().ok());
    let door = door.ok_or_else(|| {
        Failure::Failed(format!(
            "{} has no HTTP door, which alone tells of all namespaces; see serve --http",
            status.server
        ))
    })?;
    // Building it panics without one. That somebody else has set it already is fine, too.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let client = client.map_err(|error| Failure::Failed(format!("cannot speak HTTP: {error}")))?;
    let mut tried = Vec::new();
    for address in addresses(door, servers) {
        let asked = async {
            let answer = client.get(format!("http://{address}/api/v1/status")).send().await?.error_for_status()?;
            answer.json::<Status>().await
        };
        match asked.await {
            Ok(told) if told.server == status.server => return Ok(told.namespaces),
            Ok(told) => tried.push(format!("{address}: is {}, not {}", told.server, status.server)),
            Err(error) => tried.push(format!("{address}: {}", root(&error))),
        }
    }
    Err(Failure::Failed(format!(
        "the HTTP door of {} cannot be asked ({}); run this where it can be reached",
        status.server,
        tried.join("; ")
    )))
}

/// Where it may be: a server that listens everywhere is at the host that answered over RPC.
fn addresses(door: SocketAddr, servers: &str) -> Vec<String> {
    if !door.ip().is_unspecified() {
        return vec![door.to_string()];
    }
    let hosts = servers.split(',').filter_map(|server| server.trim().rsplit_once(':'));
    hosts.map(|(host, _)| format!("{host}:{}", door.port())).collect()
}

fn root(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn table(all: &[NamespaceStatus]) -> Table {
    let mut table = Table::new(["NAMESPACE", "SERVICES", "INSTANCES", "PASSING", "EVICTED"]);
    for namespace in all {
        let sum = |count: fn(&roundsman::ServiceSummary) -> u32| namespace.services.iter().map(count).sum::<u32>();
        table.row([
            Cell::new(namespace.namespace.as_str()),
            Cell::new(namespace.services.len().to_string()),
            Cell::count(sum(|service| service.instances), Style::Plain),
            Cell::count(sum(|service| service.passing), Style::Green),
            Cell::count(sum(|service| service.evicted), Style::Red),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_on_all_addresses_is_at_the_host_that_was_named() {
        let addresses = |door: &str, servers| addresses(door.parse().unwrap(), servers);
        assert_eq!(addresses("127.0.0.1:5556", "10.0.0.1:5555"), ["127.0.0.1:5556"]);
        assert_eq!(addresses("0.0.0.0:5556", "disco:5555,[::1]:5555"), ["disco:5556", "[::1]:5556"]);
    }
}
