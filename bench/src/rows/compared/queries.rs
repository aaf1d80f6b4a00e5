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
const TIMES: u32 = 5;
/// Registrations beside watches, as many of them between two watches, and the time between two of them.
const REGISTRATIONS: u32 = 200;
const BETWEEN: u32 = 40;
const PAUSE: Duration = Duration::from_millis(10);
const GOAL: Duration = Duration::from_millis(10);
const HELD: Duration = Duration::from_millis(50);

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
            .goal("longest ≤ 50 ms", Some(held.max() <= HELD)),
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

/// How long registrations take while such watches are answered, each of them everything at first, and then wait.
async fn beside_a_watch(server: &Server, query: &Value) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let mut wire = Wire::open(server.rpc, "default").await?;
    let mut watchers = Vec::new();
    for number in 0..REGISTRATIONS {
        if number % BETWEEN == 0 {
            let mut watcher = Wire::open(server.rpc, "default").await?;
            let watch = json!({"query": query, "after": null, "wait": "60s"});
            watcher.send("Watch", watch, Duration::from_secs(70)).await?;
            watchers.push(watcher);
        }
        let address = format!("10.9.{}.{}:80", number / 250, number % 250);
        let registration = json!({"name": "late", "id": format!("late-{number}"), "address": address,
            "check": {"kind": "none"}, "tags": ["a"]});
        let start = Instant::now();
        wire.call("Register", json!({"registration": registration})).await?;
        latencies.record(start.elapsed());
        sleep(PAUSE).await;
    }
    Ok(latencies)
}
