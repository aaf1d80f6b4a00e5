//! Very many watchers of very many instances come at once, each for everything.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use roundsman_protocol::{Bookmark, DiscoveryRequest, Query, ServiceName, Version, rpc::Wait};
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{SERVICE, filling, setup, spoken, thousands};
use crate::{
    error::{Context, Failure, Result},
    kernel,
    plan::Plan,
    raw::Raw,
    report::Row,
    rows::duration,
    server::Store,
    wire::Wire,
};

const TIME: Duration = Duration::from_secs(10);
const MEMORY: f64 = 200e6;
/// Who is not served by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// An instance takes more bytes than this.
const LEAST_EACH: usize = 40;

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let (watchers, instances) = (plan.snapshot_watchers, plan.watched);
    let server = setup(Store::Memory, program, instances).start().await?;
    filling::register(&mut Wire::open(server.rpc, "default").await?, SERVICE, 0..instances).await?;
    let version = spoken(program);
    let before = server.process.resident()?;
    kernel::forget_peak(server.process.pid())?;
    let (served, bytes, took) = serve(server.rpc, version, watchers, instances).await?;
    let peak = kernel::peak_resident(server.process.pid())?.saturating_sub(before) as f64;
    let all = if served == watchers {
        format!("all in {}", duration(took))
    } else {
        format!("{served} in {}", duration(PATIENCE))
    };
    let measured = format!(
        "{all}, at most {:.0} MB beyond the {:.0} MB of the data, {:.1} GB sent",
        peak / 1e6,
        before as f64 / 1e6,
        bytes as f64 / 1e9
    );
    let what = format!("{} watchers of {} instances come at once", thousands(count(watchers)), thousands(instances));
    let reached = served == watchers && took <= TIME && peak <= MEMORY;
    Ok(vec![Row::figure(what, measured).goal("≤ 10 s, ≤ 200 MB", Some(reached))])
}

fn count(watchers: usize) -> u32 {
    u32::try_from(watchers).unwrap_or(u32::MAX)
}

/// Lets all of them come; returns how many were served in time, the bytes, and how long it took.
async fn serve(
    server: SocketAddr,
    version: Version,
    watchers: usize,
    instances: u32,
) -> Result<(usize, usize, Duration)> {
    let query = Query::service(ServiceName::try_new(SERVICE).context("a service's name")?);
    let (together, mut tasks) = (Arc::new(Barrier::new(watchers + 1)), JoinSet::new());
    for _ in 0..watchers {
        let (query, together) = (query.clone(), Arc::clone(&together));
        tasks.spawn(async move {
            let raw = Raw::open(server, version).await;
            together.wait().await;
            watch(raw?, server, &query, version).await
        });
    }
    together.wait().await;
    let start = Instant::now();
    let (mut served, mut bytes, mut took) = (Vec::new(), 0, Duration::ZERO);
    while let Ok(Some(ended)) = timeout_at(start + PATIENCE, tasks.join_next()).await {
        let raw = ended.context("watching")??;
        let least = LEAST_EACH * usize::try_from(instances).unwrap_or_default();
        if raw.bytes < least {
            return Err(Failure::new("watching", format!("a snapshot of {} bytes is not all of it", raw.bytes)));
        }
        bytes += raw.bytes;
        took = start.elapsed();
        // Each keeps its connection, as watchers do.
        served.push(raw);
    }
    Ok((served.len(), bytes, took))
}

/// Reads everything. Comes again when it is sent away.
async fn watch(mut raw: Raw, server: SocketAddr, query: &Query, version: Version) -> Result<Raw> {
    let mut last = None;
    for pause in 1..20 {
        match read_all(&mut raw, query).await {
            Ok(()) => return Ok(raw),
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(pause * 50)).await;
        raw = Raw::open(server, version).await?;
    }
    Err(last.unwrap_or_else(|| Failure::new("watching", "no try was made")))
}

/// Page by page, where there are pages.
async fn read_all(raw: &mut Raw, query: &Query) -> Result<()> {
    let mut page: Option<Bookmark> = None;
    for id in 1.. {
        let (query, wait) = (query.clone(), Wait(Duration::ZERO));
        raw.send(id, DiscoveryRequest::Watch { query, after: None, wait, known: None, page }).await?;
        page = raw.skim().await?.next()?;
        if page.is_none() {
            break;
        }
    }
    Ok(())
}
