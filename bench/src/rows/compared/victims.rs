//! Instances to be killed, beside very many that hang.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    process::Helper,
    rows::visits::address,
    wire::Wire,
};

/// The service of those who are killed, and of those who hang.
pub(super) const VICTIM: &str = "victim";
const HANGING: &str = "hanging";
/// The number of the first one to be killed: its address is of nobody else.
const FIRST: u32 = 50_000;
/// Processes among which those who hang are spread: each needs two files for one of them.
const PROCESSES: u32 = 4;
const REGISTRARS: u32 = 8;

/// An instance in a process of its own.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) id: String,
    pub(super) helper: Helper,
    registration: Value,
}

/// Those who hang, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Hanging(#[expect(dead_code, reason = "they end with it")] Vec<Helper>);

// === impl Victim ===

impl Victim {
    /// Starts it; nobody knows of it yet.
    pub(super) async fn start(turn: u32, port: u16) -> Result<Self> {
        let address = address(FIRST + turn, port).to_string();
        let arguments = ["single", "--address", &address].map(str::to_owned);
        let (helper, _) = Helper::start(Core::Any, &arguments).await?;
        let id = format!("{VICTIM}-{turn}");
        let registration = json!({"registration": {"name": VICTIM, "id": id, "address": address}});
        Ok(Self { id, helper, registration })
    }

    pub(super) async fn register(&self, wire: &mut Wire) -> Result<()> {
        wire.call("Register", self.registration.clone()).await.map(drop)
    }
}

// === impl Hanging ===

impl Hanging {
    /// So many who accept and never answer, all registered, with that time for a visit and between two.
    pub(super) async fn start(
        server: SocketAddr,
        count: u32,
        timeout: Duration,
        interval: Duration,
        port: u16,
    ) -> Result<Self> {
        let each = count.div_ceil(PROCESSES);
        let mut helpers = Vec::new();
        for process in 0..PROCESSES {
            let first = process * each;
            let some = each.min(count.saturating_sub(first)).to_string();
            let arguments = ["hung", "--first", &first.to_string(), "--count", &some, "--port", &port.to_string()];
            helpers.push(Helper::start(Core::Any, &arguments.map(str::to_owned)).await?.0);
        }
        let check = json!({
            "kind": "http",
            "timeout": format!("{}s", timeout.as_secs()),
            "interval": format!("{}s", interval.as_secs()),
        });
        let mut tasks = JoinSet::new();
        for registrar in 0..REGISTRARS {
            let check = check.clone();
            tasks.spawn(async move {
                let mut wire = Wire::open(server, "default").await?;
                for number in (registrar..count).step_by(REGISTRARS as usize) {
                    let (id, address) = (format!("{HANGING}-{number}"), address(number, port).to_string());
                    let registration = json!({"name": HANGING, "id": id, "address": address, "check": check});
                    wire.call("Register", json!({"registration": registration})).await?;
                }
                Ok::<_, Failure>(wire)
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("registering")??;
        }
        Ok(Self(helpers))
    }
}

/// A port that is free on the addresses of instances.
pub(super) async fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(address(0, 0)).await.context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}
