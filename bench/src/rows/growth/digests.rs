//! A restart, and very many watchers come back who know nearly everything already.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use roundsman_protocol::{Cursor, Digest, DiscoveryRequest, DiscoveryResponse, Known, Query, ServiceName, rpc::Wait};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{SERVICE, filling, setup, spoken, thousands};
use crate::{
    error::{Context, Failure, Result},
    plan::Plan,
    raw::Raw,
    report::Row,
    rows::duration,
    rpc::{self, Connection},
    server::{Server, Store},
    wire::Wire,
};

const GOAL: f64 = 10e6;
/// Who come back at the same moment, each on a connection of its own that it keeps.
const TASKS: usize = 64;
/// Watchers of a release that knows no digests, of which one learns what all of them would read.
const FEW: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watcher still has from before.
#[derive(Clone, Debug)]
struct Memory {
    query: Query,
    after: Cursor,
    digest: Option<Digest>,
}

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let (watchers, instances) = (plan.digest_watchers, plan.watched);
    let setup = setup(Store::Sqlite, program, instances).flag("--max-connections", watchers + 100);
    let setup = setup.flag("--max-http-connections", 16);
    let server = setup.clone().start().await?;
    filling::register(&mut Wire::open(server.rpc, "default").await?, SERVICE, 0..instances).await?;
    let memory = Arc::new(learn(&server, program.is_none()).await?);
    let rpc = server.rpc;
    let folder = server.stop().await?;
    let server = setup.after(folder).at(rpc).start().await?;
    let come = if memory.digest.is_some() { watchers } else { FEW.min(watchers) };
    let (bytes, took) = come_back(server.rpc, &memory, program, come).await?;
    let all = bytes as f64 * watchers as f64 / come.max(1) as f64;
    let measured = if come == watchers {
        format!("{:.1} MB both ways, all of them current in {}", all / 1e6, duration(took))
    } else {
        let factor = watchers as f64 / come.max(1) as f64;
        format!("{:.0} MB: what {come} of them read, times {factor:.0}", all / 1e6)
    };
    let what = format!(
        "{} watchers of {} instances return after a restart",
        thousands(u32::try_from(watchers).unwrap_or(u32::MAX)),
        thousands(instances)
    );
    Ok(vec![Row::figure(what, measured).goal("≤ 10 MB", Some(all <= GOAL))])
}

/// Reads everything once, as a watcher has before the restart.
async fn learn(server: &Server, digests: bool) -> Result<Memory> {
    let query = Query::service(ServiceName::try_new(SERVICE).context("a service's name")?);
    if !digests {
        // Of another epoch, as every cursor is after a restart.
        return Ok(Memory { query, after: Cursor { epoch: 1, revision: 1 }, digest: None });
    }
    let connection = Connection::open(server.rpc).await?;
    let (mut digest, mut page, mut after) = (Digest::default(), None, None);
    loop {
        let wait = Wait(Duration::ZERO);
        let watch = connection.client.watch(rpc::within(PATIENCE), query.clone(), None, wait, None, page);
        let update = rpc::answer("watching", watch.await)?;
        for instance in &update.instances {
            digest.add(&instance.id, instance.fingerprint());
        }
        let after = *after.get_or_insert(update.cursor);
        page = update.next;
        if page.is_none() {
            return Ok(Memory { query, after, digest: Some(digest) });
        }
    }
}

/// Lets so many come back; returns the bytes of all of them, and how long it took.
async fn come_back(
    server: SocketAddr,
    memory: &Arc<Memory>,
    program: Option<&Path>,
    count: usize,
) -> Result<(usize, Duration)> {
    let (start, mut tasks, version) = (Instant::now(), JoinSet::new(), spoken(program));
    for task in 0..TASKS {
        let (memory, mine) = (Arc::clone(memory), (task..count).step_by(TASKS).count());
        tasks.spawn(async move {
            let (mut kept, mut bytes) = (Vec::with_capacity(mine), 0);
            for _ in 0..mine {
                let raw = Raw::open(server, version).await?;
                kept.push(catch_up(raw, &memory, &mut bytes).await?);
            }
            Ok::<_, Failure>((kept, bytes))
        });
    }
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (more, theirs) = ended.context("coming back")??;
        kept.extend(more);
        bytes += theirs;
    }
    Ok((bytes, start.elapsed()))
}

/// Says what it knows, and learns what it does not. Asks again when it is sent away.
async fn catch_up(mut raw: Raw, memory: &Memory, bytes: &mut usize) -> Result<Raw> {
    let mut last = None;
    for id in 1..20 {
        let (query, known) = (memory.query.clone(), memory.digest.clone().map(Known::Digest));
        let (after, wait) = (Some(memory.after), Wait(PATIENCE));
        raw.send(id, DiscoveryRequest::Watch { query, after, wait, known, page: None }).await?;
        let skimmed = raw.skim().await?;
        if memory.digest.is_none() && skimmed.length > 1_000 {
            *bytes += raw.bytes;
            return Ok(raw);
        }
        if skimmed.length > 1_000 {
            let answer = format!("an answer of {} bytes to a digest that is right", skimmed.length);
            return Err(Failure::new("coming back", answer));
        }
        match skimmed.answer()? {
            DiscoveryResponse::Watch(Ok(update)) if update.is_unchanged() && update.cursor != memory.after => {
                *bytes += raw.bytes;
                return Ok(raw);
            }
            other => last = Some(format!("{other:?}")),
        }
        sleep(Duration::from_millis(id * 50)).await;
    }
    Err(Failure::new("coming back", last.unwrap_or_default()))
}
