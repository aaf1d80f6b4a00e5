//! A restart, and all clients come back at the same moment, each for everything.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::listing::{INSTANCES, fill};
use crate::{
    error::{Context, Failure, Result},
    kernel,
    plan::Plan,
    report::Row,
    rows::duration,
    server::{Setup, Store},
    wire::Wire,
};

const TIME: Duration = Duration::from_secs(2);
const MEMORY: f64 = 150e6;

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let clients = plan.returning;
    let setup = Setup::new(Store::Sqlite).release(program);
    let server = setup.clone().start().await?;
    fill(server.rpc, INSTANCES, 0).await?;
    let mut observer = Wire::open(server.rpc, "default").await?;
    let first = observer.call("Watch", json!({"query": {}, "after": null, "wait": "0s"})).await?;
    let cursor = first.get("cursor").cloned().unwrap_or_default();
    let rpc = server.rpc;
    let folder = server.kill()?;
    let server = setup.after(folder).at(rpc).start().await?;
    let before = server.process.resident()? as f64;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(come_back(rpc, cursor.clone()));
    }
    let (mut wires, mut bytes) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (wire, read) = ended.context("coming back")??;
        bytes += read;
        // Each keeps its connection, as clients do.
        wires.push(wire);
    }
    let took = start.elapsed();
    let peak = kernel::peak_resident(server.process.pid())? as f64;
    let measured = format!(
        "{}, at most {:.0} MB in the server ({:.0} before), {:.0} MB read",
        duration(took),
        peak / 1e6,
        before / 1e6,
        bytes as f64 / 1e6
    );
    let what = format!("{clients} JSON clients with a watch of {INSTANCES} instances come back after a restart");
    Ok(vec![Row::figure(what, measured).goal("≤ 2 s, ≤ 150 MB", Some(took <= TIME && peak <= MEMORY))])
}

/// Asks to go on from where the server before was, and gets everything. Comes again when it is sent away.
async fn come_back(server: SocketAddr, cursor: Value) -> Result<(Wire, usize)> {
    let mut scratch = vec![0; 16 * 1_024];
    let mut last = None;
    for pause in 0..20 {
        tokio::time::sleep(Duration::from_millis(pause * 50)).await;
        match snapshot(server, &cursor, &mut scratch).await {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new("coming back", "no try was made")))
}

async fn snapshot(server: SocketAddr, cursor: &Value, scratch: &mut [u8]) -> Result<(Wire, usize)> {
    let mut wire = Wire::open(server, "default").await?;
    let watch = json!({"query": {}, "after": cursor, "wait": "60s"});
    wire.send("Watch", watch, Duration::from_secs(70)).await?;
    let read = wire.skip(scratch).await?;
    // A refusal is shorter than any instance.
    if read < 1_000 {
        return Err(Failure::new("coming back", format!("an answer of {read} bytes")));
    }
    Ok((wire, read))
}
