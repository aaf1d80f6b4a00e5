//! The server itself is stopped for a while: whoever renews in time must not lose by it.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    error::Result,
    plan::Plan,
    report::Row,
    server::{Setup, Store},
    wire::Wire,
};

const INSTANCES: u32 = 300;
const CONNECTIONS: u32 = 10;
const TTL: &str = "3s";
const FROZEN: Duration = Duration::from_secs(3);

pub(super) async fn measure(_: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Sqlite).release(program).start().await?;
    let mut renewing = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut wire = Wire::open(server.rpc, "default").await?;
        let numbers = (connection..INSTANCES).step_by(CONNECTIONS as usize).collect::<Vec<_>>();
        for number in &numbers {
            let (id, address) = (id(*number), format!("10.7.{}.{}:80", number / 250, number % 250 + 1));
            let check = json!({"kind": "ttl", "ttl": TTL});
            let registration = json!({"name": "renewing", "id": id, "address": address, "check": check});
            wire.call("Register", json!({"registration": registration})).await?;
        }
        // Whoever is evicted is not registered again: that is what is counted.
        renewing.spawn(async move { drop(renew(wire, numbers).await) });
    }
    sleep(Duration::from_secs(3)).await;
    let before = evictions(server.rpc).await?;
    server.process.freeze()?;
    sleep(FROZEN).await;
    server.process.thaw()?;
    // Longer than a ttl: who is evicted for it is evicted by then.
    sleep(Duration::from_secs(5)).await;
    let evicted = evictions(server.rpc).await?.saturating_sub(before);
    let what = format!("{INSTANCES} instances renew each second (ttl {TTL}), the server is stopped for 3 s: evicted");
    Ok(vec![Row::figure(what, format!("{evicted} of {INSTANCES}")).goal("0", Some(evicted == 0))])
}

async fn renew(mut wire: Wire, numbers: Vec<u32>) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for number in &numbers {
            drop(wire.call("Renew", json!({"id": id(*number)})).await);
        }
    }
}

fn id(number: u32) -> String {
    format!("renewing-{number}")
}

async fn evictions(server: SocketAddr) -> Result<u64> {
    let status = Wire::open(server, "default").await?.call("Status", json!({})).await?;
    Ok(status.pointer("/rounds/evictions").and_then(Value::as_u64).unwrap_or_default())
}
