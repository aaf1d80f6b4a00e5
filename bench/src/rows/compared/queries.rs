//! One query of a megabyte: what it costs the server, and whoever registers meanwhile.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::listing::{INSTANCES, fill};
use crate::{
    error::Result,
    plan::Plan,
    report::Row,
    rows::duration,
    server::{Server, Setup, Store},
    stats::Latencies,
    wire::Wire,
};

/// Together a megabyte less a little, which is what a frame may be.
const TAGS: usize = 240_000;
const NAMES: u32 = 14_000;
/// Times that the query is asked.
const TIMES: u32 = 3;
/// Registrations beside the watch.
const REGISTRATIONS: u32 = 10;
const GOAL: Duration = Duration::from_millis(10);

pub(super) async fn measure(_: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let names: Vec<String> = (0..NAMES).map(|number| format!("{number:05}{}", "x".repeat(58))).collect();
    let queries = [
        ("one tag, 240,000 times", json!({"tags": vec!["a"; TAGS]})),
        ("14,000 names of services", json!({"services": names})),
    ];
    let mut rows = Vec::new();
    for (what, query) in queries {
        let server = Setup::new(Store::Memory).release(program).start().await?;
        fill(server.rpc, INSTANCES, 0).await?;
        let (cpu, refused) = ask(&server, &query).await?;
        let held = beside_a_watch(&server, &query).await?;
        let answer = if refused { "refused" } else { "answered" };
        rows.push(
            Row::figure(
                format!("a query of a megabyte ({what}) of {INSTANCES} instances: CPU of the server"),
                format!("{} each, {answer}", duration(cpu)),
            )
            // Of that, reading a megabyte of JSON takes some.
            .goal("≤ 10 ms", Some(cpu <= GOAL)),
        );
        rows.push(
            Row::figure(format!("registrations beside a watch of it ({what})"), {
                format!("p50 {}, longest {}", duration(held.p50()), duration(held.max()))
            })
            .goal("≤ 10 ms", Some(held.max() <= GOAL)),
        );
    }
    Ok(rows)
}

/// The server's CPU time for one such list, and whether it was refused.
async fn ask(server: &Server, query: &Value) -> Result<(Duration, bool)> {
    let before = server.process.cpu_time()?;
    let mut refused = false;
    for _ in 0..TIMES {
        // A connection of its own each time: a refusal may end it.
        let mut wire = Wire::open(server.rpc, "default").await?;
        refused = wire.call("List", json!({"query": query})).await.is_err();
    }
    Ok((server.process.cpu_time()?.saturating_sub(before) / TIMES, refused))
}

/// How long registrations take while such a watch waits, if it is let to.
async fn beside_a_watch(server: &Server, query: &Value) -> Result<Latencies> {
    let mut watcher = Wire::open(server.rpc, "default").await?;
    let none = json!({"query": {"services": ["nobody"]}, "after": null, "wait": "0s"});
    let first = watcher.call("Watch", none).await?;
    let cursor = first.get("cursor").cloned().unwrap_or_default();
    let watch = json!({"query": query, "after": cursor, "wait": "60s"});
    watcher.send("Watch", watch, Duration::from_secs(70)).await?;
    // It has been read, and waits or was refused.
    sleep(Duration::from_secs(1)).await;
    let mut latencies = Latencies::new()?;
    let mut wire = Wire::open(server.rpc, "default").await?;
    for number in 0..REGISTRATIONS {
        let registration = json!({"name": "late", "address": format!("10.9.0.{number}:80"), "check": {"kind": "none"},
            "id": format!("late-{number}"), "tags": ["a"]});
        let start = Instant::now();
        wire.call("Register", json!({"registration": registration})).await?;
        latencies.record(start.elapsed());
    }
    Ok(latencies)
}
