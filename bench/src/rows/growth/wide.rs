//! A watch with as many names as there may be, over a log that is full of others' changes.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{SERVICE, filling, registrar::registrations, setup};
use crate::{
    error::{Context, Failure, Result},
    isolated,
    plan::Plan,
    report::Row,
    rows::{duration, ratio, time},
    series::micros,
    server::{Server, Store},
    wire::Wire,
};

/// Names of a watch, and changes in the log: as many less than it keeps as registrations beside the watches make.
const NAMES: u32 = 1_024;
const CHANGES: u32 = 3_500;
const INSTANCES: u32 = 100;
/// Watches come this often, whether or not they are answered in time.
const EVERY: Duration = Duration::from_millis(10);
const MARGIN: Duration = Duration::from_millis(500);
const GOAL: f64 = 2.0;

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let for_so_long = (plan.under_attack / 4).min(Duration::from_secs(1));
    let server = setup(Store::Memory, program, 200_000).start().await?;
    let mut wire = Wire::open(server.rpc, "default").await?;
    filling::register(&mut wire, SERVICE, 0..INSTANCES).await?;
    let cost = cost(&server, &mut wire, plan.rounds).await?;
    let alone = registrations(server.rpc, "default", 1_000_000, 2 * for_so_long).await?;
    let after = full_log(&mut wire).await?;
    let rpc = server.rpc;
    let mut watches = tokio::task::JoinSet::new();
    watches.spawn(isolated::run_humbly(async move { watch(rpc, after, for_so_long + MARGIN).await }));
    sleep(MARGIN / 5).await;
    let beside = registrations(server.rpc, "default", 2_000_000, for_so_long).await?;
    let watched = watches.join_next().await.transpose().context("watching")?.transpose()?.unwrap_or_default();
    let times = ratio(micros(beside.p99()), micros(alone.p99()));
    let measured = format!(
        "{} of the server's CPU each; registrations beside {} of them: p99 {}, longest {}; without them p99 {}: {times:.1} ×",
        time(cost),
        watched,
        duration(beside.p99()),
        duration(beside.max()),
        duration(alone.p99())
    );
    let what = format!("a watch of {NAMES} names over {CHANGES} changes of others, 100 a second");
    Ok(vec![Row::figure(what, measured).goal(format!("p99 ≤ {GOAL} × without"), Some(times <= GOAL))])
}

/// Microseconds of the server's CPU for one such watch, while nothing else goes on.
async fn cost(server: &Server, wire: &mut Wire, rounds: usize) -> Result<f64> {
    let arguments = arguments(&full_log(wire).await?);
    let count = 20 * u32::try_from(rounds).context("counting rounds")?;
    let cpu = server.process.cpu_time()?;
    for _ in 0..count {
        unchanged(&wire.call("Watch", arguments.clone()).await?)?;
    }
    let cpu = server.process.cpu_time()?.saturating_sub(cpu);
    Ok(micros(cpu) / f64::from(count.max(1)))
}

/// Fills the log with changes of another service; returns the cursor before them.
async fn full_log(wire: &mut Wire) -> Result<Value> {
    let first = wire.call("Watch", json!({"query": {"services": ["absent"]}, "after": null, "wait": "0s"})).await?;
    let drains = (0..CHANGES)
        .map(|number| Ok(json!({"id": filling::id(number % INSTANCES), "on": (number / INSTANCES).is_multiple_of(2)})));
    wire.call_all("Drain", drains, filling::TOGETHER).await?;
    first.get("cursor").cloned().ok_or_else(|| Failure::new("watching", first.to_string()))
}

/// The watch: of services that are not there, so that nothing of the log concerns it.
fn arguments(after: &Value) -> Value {
    let names: Vec<String> = (0..NAMES).map(|number| format!("absent-{number:05}")).collect();
    json!({"query": {"services": names}, "after": after, "wait": "0s"})
}

/// Watches from the same cursor again and again, until the log no longer reaches back to it; returns how often.
async fn watch(server: SocketAddr, after: Value, for_so_long: Duration) -> Result<u32> {
    let mut wire = Wire::open(server, "default").await?;
    let arguments = arguments(&after);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (start, mut watched) = (Instant::now(), 0);
    while start.elapsed() < for_so_long {
        ticks.tick().await;
        if unchanged(&wire.call("Watch", arguments.clone()).await?).is_err() {
            break;
        }
        watched += 1;
    }
    Ok(watched)
}

/// An answer that says that nothing changed; any other one would be cheap for another reason.
fn unchanged(update: &Value) -> Result<()> {
    match update.get("snapshot") {
        Some(Value::Bool(false)) => Ok(()),
        _ => Err(Failure::new("watching", "the log no longer reaches back")),
    }
}
