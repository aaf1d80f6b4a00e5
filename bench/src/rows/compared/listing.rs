//! Clients that list everything without pause, and what others notice of it.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use super::steady;
use crate::{
    error::Result,
    isolated::{self, Core},
    plan::Plan,
    population,
    report::Row,
    server::{Setup, Store},
    wire::Wire,
};

pub(super) const INSTANCES: u32 = 1_000;
const LISTERS: usize = 4;
/// Lists that each of them has under way.
const AHEAD: usize = 8;
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Memory).release(program).start().await?;
    fill(server.rpc, INSTANCES, 0).await?;
    let (service, time) = (population::service(0)?.to_string(), plan.under_attack);
    let alone = steady::alone(server.rpc, &service, time).await?;
    let mut listers = JoinSet::new();
    for _ in 0..LISTERS {
        listers.spawn(isolated::run(Core::Any, move || list_without_pause(server.rpc)));
    }
    let beside = steady::alone(server.rpc, &service, time).await?;
    listers.abort_all();
    // They notice when the server is gone.
    server.stop().await?;
    let what = format!("lookups beside {LISTERS} clients that list {INSTANCES} instances as JSON without pause");
    Ok(beside.rows(&alone, &what).into())
}

/// Registers so many instances that nobody visits, ten of each service, with so many bytes of metadata.
pub(super) async fn fill(server: SocketAddr, count: u32, bytes: usize) -> Result<()> {
    let mut wire = Wire::open(server, "default").await?;
    for number in 0..count {
        let registration = population::instance(number, count / 10)?;
        let mut registration = json!({
            "name": registration.name.as_str(),
            "id": format!("filler-{number}"),
            "address": registration.address.to_string(),
            "check": {"kind": "none"},
            "tags": ["a"],
            "meta": {"commit": format!("{number:07x}"), "team": "checkout"},
            "zone": "eu-central-1a",
            "version": "1.14.2",
        });
        if let Some(meta) = registration.get_mut("meta").filter(|_| bytes > 0) {
            *meta = json!({"notes": "n".repeat(bytes)});
        }
        wire.call("Register", json!({"registration": registration})).await?;
    }
    Ok(())
}

/// Until the server hangs up.
async fn list_without_pause(server: SocketAddr) -> Result<()> {
    let mut wire = Wire::open(server, "default").await?;
    let mut scratch = vec![0; 256 * 1_024];
    for _ in 0..AHEAD {
        wire.send("List", json!({"query": {}}), DEADLINE).await?;
    }
    loop {
        wire.skip(&mut scratch).await?;
        wire.send("List", json!({"query": {}}), DEADLINE).await?;
    }
}
