//! Beside thousands that hang: how soon a death is noticed, and how soon a new instance passes.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    eye::Eye,
    victims::{Hanging, VICTIM, Victim, free_port},
};
use crate::{
    error::Result,
    plan::Plan,
    report::Row,
    rows::duration,
    server::{Setup, Store},
    stats::Latencies,
    wire::Wire,
};

const KILL: Duration = Duration::from_millis(50);
const BIRTH: Duration = Duration::from_millis(100);
/// What has not happened by then counts as this long.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two kills, and two births: none of them waits for the one before.
const PAUSE: Duration = Duration::from_millis(150);

/// Those who hang.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    count: u32,
    timeout: Duration,
    interval: Duration,
}

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let (second, five, minute) = (Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(60));
    let crowds = [
        Crowd { count: plan.hung, timeout: minute, interval: minute },
        Crowd { count: plan.hung, timeout: second, interval: five },
        Crowd { count: plan.hung / 5 * 8, timeout: second, interval: five },
    ];
    let mut rows = Vec::new();
    for crowd in crowds {
        rows.extend(beside(plan, program, crowd).await?);
    }
    Ok(rows)
}

async fn beside(plan: &Plan, program: Option<&Path>, crowd: Crowd) -> Result<Vec<Row>> {
    // Those who never answered are not to be given up before the measurement is over.
    let setup = Setup::new(Store::Sqlite).release(program).flag("--start-deadline", "10m");
    let server = setup.start().await?;
    let mut registrar = Wire::open(server.rpc, "default").await?;
    let mut eye = Eye::open(server.rpc, VICTIM).await?;
    let ports = (free_port().await?, free_port().await?);
    let mut victims = Vec::new();
    for turn in (0..).take(plan.deaths) {
        let victim = Victim::start(turn, ports.0).await?;
        victim.register(&mut registrar).await?;
        victims.push(victim);
    }
    eye.arrivals(victims.len(), Instant::now() + LIMIT).await?;
    let _hanging = Hanging::start(server.rpc, crowd.count, crowd.timeout, crowd.interval, ports.1).await?;
    // All of them are visited by now, or wait for it.
    sleep(Duration::from_secs(3)).await;
    let deaths = kill(&mut eye, victims).await?;
    let births = give_birth(&mut eye, server.rpc, plan.deaths, ports.0).await?;
    let Crowd { count, timeout, .. } = crowd;
    let beside = format!("beside {count} that hang, with a timeout of {} s", timeout.as_secs());
    Ok(vec![
        Row::figure(format!("kill -9 to gone, {beside}"), describe(&deaths))
            .goal("p99 ≤ 50 ms", Some(deaths.p99() <= KILL)),
        Row::figure(format!("first pass of a new instance, {beside}"), describe(&births))
            .goal("p99 ≤ 100 ms", Some(births.p99() <= BIRTH)),
    ])
}

async fn kill(eye: &mut Eye, victims: Vec<Victim>) -> Result<Latencies> {
    let mut killed = BTreeMap::new();
    let mut dead = Vec::new();
    for mut victim in victims {
        killed.insert(victim.id.clone(), Instant::now());
        victim.helper.process().kill()?;
        dead.push(victim);
        sleep(PAUSE).await;
    }
    collect(eye, killed, false).await
}

async fn give_birth(eye: &mut Eye, server: SocketAddr, count: usize, port: u16) -> Result<Latencies> {
    let mut wire = Wire::open(server, "default").await?;
    let (mut born, mut alive) = (BTreeMap::new(), Vec::new());
    for turn in (1_000..).take(count) {
        let victim = Victim::start(turn, port).await?;
        born.insert(victim.id.clone(), Instant::now());
        victim.register(&mut wire).await?;
        alive.push(victim);
        sleep(PAUSE).await;
    }
    collect(eye, born, true).await
}

/// Waits until all of them came, or went.
async fn collect(eye: &mut Eye, mut awaited: BTreeMap<String, Instant>, here: bool) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let end = Instant::now() + LIMIT;
    while !awaited.is_empty() {
        let Some(change) = eye.next(end).await? else { break };
        if change.here == here
            && let Some(since) = awaited.remove(&change.id)
        {
            latencies.record(change.at.saturating_duration_since(since));
        }
    }
    for since in awaited.into_values() {
        latencies.record(since.elapsed());
    }
    Ok(latencies)
}

fn describe(latencies: &Latencies) -> String {
    let figure = |time: Duration| if time >= LIMIT { format!("> {}", duration(LIMIT)) } else { duration(time) };
    format!("p50 {}, p99 {} ({} times)", figure(latencies.p50()), figure(latencies.p99()), latencies.count())
}
