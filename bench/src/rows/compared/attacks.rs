//! Callers that make the server keep memory for them: each kind alone, and all of them beside many good clients.

mod ways;

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::ways::{Assault, Way};
use super::{
    listing::{INSTANCES, fill},
    steady::{self, Callers},
};
use crate::{
    error::{Context, Failure, Result},
    isolated,
    plan::Plan,
    population,
    report::Row,
    server::{Server, Setup, Store},
    wire::Wire,
};

const GOAL: f64 = 300e6;
/// Metadata of the instances that are listed: a list of all of them is six megabytes.
const META: usize = 6_000;
/// How long an attack is held.
const HOLD: Duration = Duration::from_secs(4);
/// Tasks that open connections.
const OPENERS: usize = 64;

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for way in Way::ALL {
        let server = start(plan, program).await?;
        let assault = Assault::new(&server, plan);
        let more = assault_and_hold(&server, &assault, &[way]).await?;
        let what = format!("memory of the server under attack: {}", way.describe(plan));
        rows.push(Row::figure(what, megabytes(more)).goal("≤ 300 MB", Some(more <= GOAL)));
    }
    rows.extend(all_at_once(plan, program).await?);
    Ok(rows)
}

/// All of it beside clients who mean well.
async fn all_at_once(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let server = start(plan, program).await?;
    let service = population::service(0)?.to_string();
    let empty = server.process.resident()?;
    let good = good_clients(server.rpc, plan.good_clients, &service).await?;
    let idle = steady::alone(server.rpc, &service, plan.under_attack).await?;
    let own = server.process.resident()?.saturating_sub(empty) as f64;
    let assault = Assault::new(&server, plan);
    let callers = Callers::start(server.rpc, &service).await?;
    let more = assault_and_hold(&server, &assault, &Way::ALL).await?;
    let beside = callers.stop().await?;
    let count = good.len();
    drop(good);
    let (more_text, own) = (megabytes(more), own / 1e6);
    let memory = format!("{more_text} beyond the {own:.0} MB of the good clients");
    let mut rows = vec![
        Row::figure(format!("… all of these at once beside {count} good clients with a watch each"), memory)
            .goal("≤ 300 MB", Some(more <= GOAL)),
    ];
    rows.extend(beside.rows(&idle, "lookups of good clients meanwhile"));
    Ok(rows)
}

/// Room for all connections: this machine's limit of open files is what both sides share.
async fn start(plan: &Plan, program: Option<&Path>) -> Result<Server> {
    let setup = Setup::new(Store::Memory).release(program);
    let connections = plan.good_clients + 2_000;
    let setup = setup.flag("--max-connections", connections).flag("--max-http-connections", 64).flag("--max-kept", 64);
    let server = setup.start().await?;
    fill(server.rpc, INSTANCES, META).await?;
    Ok(server)
}

/// The most memory that the server had more than before. Attackers have machines of their own: here their side of it
/// gives way to the server and to the good clients.
async fn assault_and_hold(server: &Server, assault: &Assault, ways: &[Way]) -> Result<f64> {
    let before = server.process.resident()?;
    let mut most = before;
    let mut look = async || -> Result<()> {
        loop {
            most = most.max(server.process.resident()?);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (assault, ways) = (*assault, ways.to_vec());
    let attack = isolated::run_humbly(async move {
        let held = futures::future::try_join_all(ways.iter().map(|way| assault.run(*way))).await?;
        sleep(HOLD).await;
        drop(held);
        Ok(())
    });
    tokio::select! {
        ended = look() => ended?,
        ended = attack => ended?,
    }
    Ok(most.saturating_sub(before) as f64)
}

/// Connections that each have a watch waiting.
async fn good_clients(server: SocketAddr, count: usize, service: &str) -> Result<Vec<Wire>> {
    let mut tasks = JoinSet::new();
    for opener in 0..OPENERS {
        let (mine, service) = ((opener..count).step_by(OPENERS).count(), service.to_owned());
        tasks.spawn(async move {
            let mut wires = Vec::new();
            for _ in 0..mine {
                let mut wire = Wire::open(server, "default").await?;
                let query = json!({"services": [service]});
                let first = wire.call("Watch", json!({"query": query, "after": null, "wait": "0s"})).await?;
                let cursor = first.get("cursor").cloned().unwrap_or_default();
                let watch = json!({"query": query, "after": cursor, "wait": "240s"});
                wire.send("Watch", watch, Duration::from_secs(250)).await?;
                wires.push(wire);
            }
            Ok::<_, Failure>(wires)
        });
    }
    let (mut all, start) = (Vec::new(), Instant::now());
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended.context("connecting")??);
    }
    if start.elapsed() > Duration::from_secs(200) {
        return Err(Failure::new("connecting good clients", "it took too long: their watches end"));
    }
    Ok(all)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}
