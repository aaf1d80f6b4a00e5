//! Who is registered: most of them in a few processes, some that renew a ttl, and those to whom something happens, each
//! in a process of its own.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::plan::Plan;
use crate::{
    error::{Context, Result},
    isolated::Core,
    process::Helper,
    rows::visits::address,
    wire::Wire,
};

/// Services among which the instances are spread.
pub(super) const SERVICES: u32 = 20;
/// The longest silence of those who renew.
pub(super) const TTL: Duration = Duration::from_secs(6);
/// Connections that register. They stay, as those of services do.
const REGISTRARS: u32 = 8;

/// The instances, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Population {
    pub(super) hosts: Vec<Helper>,
    /// By number, from `Plan::hosted + Plan::renewing` on.
    pub(super) singles: Vec<Helper>,
    port: u16,
    _registrars: Vec<Wire>,
}

pub(super) fn id(number: u32) -> String {
    format!("soak-{number:05}")
}

/// The number of the instance with this id, if it is one of ours.
pub(super) fn number(id: &str) -> Option<u32> {
    id.strip_prefix("soak-")?.parse().ok()
}

pub(super) const fn service_of(instance: u32) -> u32 {
    instance % SERVICES
}

pub(super) fn service(number: u32) -> String {
    format!("service-{number:02}")
}

/// What an instance says when it registers; with a ttl it is not visited.
pub(super) fn registration(instance: u32, port: u16, ttl: bool) -> Value {
    let check = match ttl {
        true => json!({"kind": "ttl", "ttl": format!("{}s", TTL.as_secs())}),
        false => json!({"kind": "http", "path": "/health"}),
    };
    json!({"registration": {
        "name": service(service_of(instance)),
        "id": id(instance),
        "address": address(instance, port).to_string(),
        "check": check,
        "tags": ["stable"],
        "meta": {"commit": format!("{instance:07x}"), "team": "checkout"},
        "zone": "eu-central-1a",
    }})
}

// === impl Population ===

impl Population {
    /// Starts and registers everyone but those who renew, who register themselves.
    pub(super) async fn start(plan: &Plan, server: SocketAddr) -> Result<Self> {
        let probe = TcpListener::bind(address(0, 0)).await.context("looking for a free port")?;
        let port = probe.local_addr().context("looking for a free port")?.port();
        drop(probe);
        let mut hosts = Vec::new();
        let each = plan.hosted.div_ceil(plan.hosts);
        for host in 0..plan.hosts {
            let first = host * each;
            let count = each.min(plan.hosted.saturating_sub(first)).to_string();
            let arguments =
                ["listeners", "--first", &first.to_string(), "--count", &count, "--port", &port.to_string()];
            hosts.push(Helper::start(Core::Any, &arguments.map(str::to_owned)).await?.0);
        }
        let mut singles = Vec::new();
        for number in plan.singles() {
            singles.push(single(number, port).await?);
        }
        let mut registrars = Vec::new();
        for _ in 0..REGISTRARS {
            registrars.push(Wire::open(server, "default").await?);
        }
        for (turn, number) in (0..plan.hosted).chain(plan.singles()).enumerate() {
            let turn = turn % registrars.len();
            if let Some(wire) = registrars.get_mut(turn) {
                wire.call("Register", registration(number, port, false)).await?;
            }
        }
        Ok(Self { hosts, singles, port, _registrars: registrars })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }
}

/// Starts one of those to whom something happens, at the address that it always has.
pub(super) async fn single(number: u32, port: u16) -> Result<Helper> {
    let arguments = ["single", "--address", &address(number, port).to_string()].map(str::to_owned);
    Ok(Helper::start(Core::Any, &arguments).await?.0)
}
