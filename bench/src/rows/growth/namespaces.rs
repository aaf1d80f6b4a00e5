//! Very many namespaces with one instance each.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use super::{SERVICE, alone, filling, list, setup, thousands};
use crate::{
    error::{Context, Failure, Result},
    plan::Plan,
    plot::{Cost, Point, Whose},
    report::Row,
    rows::time,
    series::micros,
    server::Store,
    wire::Wire,
};

/// Who open, register and close, again and again.
const CLIENTS: usize = 16;
/// More than these take the release before too long: the time grows with their square.
const MOST_BEFORE: u32 = 30_000;
const LIMIT: f64 = 5e6;

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let largest = plan.namespaces.last().copied().unwrap_or_default();
    let setup = setup(Store::Memory, program, largest).flag("--max-namespaces", largest * 2);
    let server = setup.start().await?;
    let most = if program.is_some() { MOST_BEFORE } else { u32::MAX };
    let (mut made, mut points) = (0, Vec::new());
    let cpu = server.process.cpu_time()?;
    for &mark in plan.namespaces.iter().filter(|mark| **mark <= most) {
        let start = Instant::now();
        create(server.rpc, made, mark).await?;
        let each = micros(start.elapsed()) / f64::from(mark.saturating_sub(made).max(1));
        points.push(Point { size: mark, micros: each });
        made = mark;
    }
    let cpu = server.process.cpu_time()?.saturating_sub(cpu);
    let measured = format!("{}; {} of the server's CPU", in_all(&points), time(micros(cpu)));
    let what = format!("namespaces of one instance created, by {CLIENTS} clients with a connection for each");
    Ok(vec![Row::figure(what, measured).curve(Cost::Namespace, Whose::Now, points)])
}

/// The same of the registry alone, which is only there as it is now.
pub(in crate::rows) async fn measure_alone(plan: &Plan) -> Result<Vec<Row>> {
    let points = alone::namespaces(plan.namespaces).await?;
    let sum = total(&points).last().map_or(0.0, |(_, sum)| *sum);
    let measured =
        format!("{}; each at the end: {}", in_all(&points), list(points.last().map_or(&[], std::slice::from_ref)));
    let row = Row::figure("… in the registry alone", measured);
    let full = points.last().is_some_and(|last| last.size >= 100_000);
    // The goal is for a hundred thousand.
    let row = if full { row.goal(format!("100,000 in ≤ {}", time(LIMIT)), Some(sum <= LIMIT)) } else { row };
    Ok(vec![row.curve(Cost::Namespace, Whose::Registry, points).compare(&Ok(Vec::new()))])
}

/// The time until there were so many, in microseconds.
fn total(points: &[Point]) -> Vec<(u32, f64)> {
    let sums = points.iter().scan((0, 0.0), |(made, sum), point| {
        *sum += point.micros * f64::from(point.size - *made);
        *made = point.size;
        Some((point.size, *sum))
    });
    sums.collect()
}

/// The times that are worth a word.
fn in_all(points: &[Point]) -> String {
    let last = points.last().map_or(0, |point| point.size);
    let worth = total(points).into_iter().filter(|(size, _)| *size >= 1_000.min(last));
    let figures = worth.map(|(size, sum)| format!("{} in {}", thousands(size), time(sum)));
    figures.collect::<Vec<_>>().join(", ")
}

/// Creates those from `first` on, up to `end`.
async fn create(server: SocketAddr, first: u32, end: u32) -> Result<()> {
    let next = Arc::new(AtomicU32::new(first));
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok(());
                }
                create_one(server, number).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("creating namespaces")??;
    }
    Ok(())
}

async fn create_one(server: SocketAddr, number: u32) -> Result<()> {
    let mut wire = Wire::open(server, &format!("n{number}")).await?;
    let registered = wire.call("Register", filling::registration(SERVICE, number)?).await?;
    // A connection that ends so leaves no port waiting; there are fewer of these than namespaces.
    wire.stream.set_zero_linger().context("closing a connection")?;
    match registered.get("outcome").and_then(Value::as_str) {
        Some("created") => Ok(()),
        _ => Err(Failure::new("creating a namespace", registered.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        let points = [(10, 1_000.0), (1_000, 500.0), (2_000, 1_000.0)].map(|(size, micros)| Point { size, micros });
        assert_eq!(in_all(&points), "1,000 in 505.0 ms, 2,000 in 1.50 s");
        assert_eq!(in_all(&points[..1]), "10 in 10.0 ms");
    }
}
