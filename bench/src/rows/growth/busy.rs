//! Registrations in one namespace while another one flips all the time.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{SERVICE, filling, registrar::registrations, setup, thousands};
use crate::{
    error::{Context, Result},
    isolated,
    plan::Plan,
    report::Row,
    rows::{duration, ratio},
    series::micros,
    server::Store,
    wire::Wire,
};

/// Flips in one write, and how often there is one: 5,000 a second.
const TOGETHER: u32 = 10;
const EVERY: Duration = Duration::from_millis(2);
/// Before and after the measurement.
const MARGIN: Duration = Duration::from_millis(500);
const GOAL: f64 = 2.0;

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let (instances, time) = (plan.busy, plan.under_attack);
    let server = setup(Store::Memory, program, instances).start().await?;
    filling::register(&mut Wire::open(server.rpc, "busy").await?, SERVICE, 0..instances).await?;
    // The first call of a namespace is not what is measured.
    registrations(server.rpc, "calm", 0, MARGIN).await?;
    let alone = registrations(server.rpc, "calm", 1_000_000, time).await?;
    let rpc = server.rpc;
    let mut flips = tokio::task::JoinSet::new();
    flips.spawn(isolated::run_humbly(async move { flip(rpc, instances, time + 2 * MARGIN).await }));
    sleep(MARGIN).await;
    let beside = registrations(server.rpc, "calm", 2_000_000, time).await?;
    let rate = flips.join_next().await.transpose().context("flipping")?.transpose()?.unwrap_or_default();
    let times = ratio(micros(beside.p99()), micros(alone.p99()));
    let measured = format!(
        "p50 {}, p99 {} beside {rate:.0} flips a second; without them p50 {}, p99 {}: {times:.1} ×",
        duration(beside.p50()),
        duration(beside.p99()),
        duration(alone.p50()),
        duration(alone.p99())
    );
    let what = format!("registrations while another namespace of {} instances flips", thousands(instances));
    Ok(vec![Row::figure(what, measured).goal(format!("p99 ≤ {GOAL} × without"), Some(times <= GOAL))])
}

/// Drains instances of one service and ends it again, for so long; returns how many a second that were.
async fn flip(server: SocketAddr, instances: u32, time: Duration) -> Result<f64> {
    let mut wire = Wire::open(server, "busy").await?;
    let mut ticks = interval(EVERY);
    // What is late is made up for at once: the rate is kept on the average, as far as the server keeps up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut flips) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        ticks.tick().await;
        let drains = (flips..flips + TOGETHER).map(|number| {
            let on = (number / instances).is_multiple_of(2);
            Ok(json!({"id": filling::id(number % instances), "on": on}))
        });
        wire.call_all("Drain", drains, filling::TOGETHER).await?;
        flips += TOGETHER;
    }
    Ok(f64::from(flips) / start.elapsed().as_secs_f64())
}
