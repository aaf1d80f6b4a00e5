//! Lookups in the client's own memory.

use std::{hint::black_box, time::Duration};

use roundsman::Discovery;
use tokio::time::Instant;

use super::lookups::filled;
use crate::{
    error::{Context, Failure, Result},
    isolated::{self, Core},
    plan::Plan,
    population,
    report::Row,
    server::{Setup, Store},
    stats::median,
};

/// Lookups between two looks at the clock.
const BATCH: u32 = 100_000;
const GOAL: f64 = 50.0;

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = filled(Setup::new(Store::Memory), 10).await?;
    let (rpc, rounds, time) = (server.rpc, plan.rounds, plan.reads / 5);
    let nanos = isolated::run(Core::Any, move || async move {
        let discovery = Discovery::connect(rpc.to_string()).await.context("connecting to the server")?;
        let resolver = discovery.resolver(population::service(0)?.as_str()).await.context("resolving")?;
        if resolver.pick().is_none() {
            return Err(Failure::new("picking", "no instance is known"));
        }
        let picks = (0..rounds).map(|_| batches(time, || black_box(&resolver).pick()));
        Ok(median(picks))
    })
    .await?;
    let measured = format!("{nanos:.0} ns, {:.0} million a second on one thread", 1e3 / nanos);
    Ok(vec![Row::figure("lookup in the client's cache", measured).goal("≤ 50 ns", Some(nanos <= GOAL))])
}

/// Nanoseconds for each call, over a while.
fn batches<T>(time: Duration, mut call: impl FnMut() -> T) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..BATCH {
            black_box(call());
        }
        calls += u64::from(BATCH);
    }
    start.elapsed().as_secs_f64() * 1e9 / calls.max(1) as f64
}
