//! Visits of very many real listeners over kept connections.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use roundsman_protocol::{Check, Registration};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::rate;
use crate::{
    error::{Context, Result},
    isolated::Core,
    plan::Plan,
    population,
    process::Helper,
    report::Row,
    server::{Server, Setup, Store},
};

/// Processes among which the listeners are spread: each needs two file descriptors for a listener.
const PROCESSES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Microseconds of CPU that a visit may take: 20,000 of them a second are 60 % of a core.
const EACH: f64 = 30.0;

/// Where listener number `number` listens.
pub(crate) fn address(number: u32, port: u16) -> SocketAddr {
    let [.., c, d] = (number / 250 * 256 + number % 250 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, c, d)), port)
}

/// Idle CPU share and memory of a server that holds the same instances and visits none.
struct Base {
    share: f64,
    resident: u64,
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let (targets, interval) = (targets(plan)?, plan.interval);
    let base = base(plan, targets).await?;
    let port = free_port().await?;
    let mut listeners = listeners(targets, port).await?;
    let server = start(plan, targets).await?;
    population::register(server.rpc, targets, move |number| target(number, port, Check::default())).await?;
    population::wait_until_passing(server.rpc, targets, PATIENCE).await?;
    // The first visits come in a hurry; what counts is the steady state.
    sleep(interval * 2).await;
    let (start, cpu, visits) = (Instant::now(), server.process.cpu_time()?, count(&mut listeners).await?);
    sleep(interval * plan.intervals).await;
    let (elapsed, visits) = (start.elapsed(), count(&mut listeners).await?.saturating_sub(visits));
    let cpu = server.process.cpu_time()?.saturating_sub(cpu);
    let resident = server.process.resident()?;
    // A figure of a server that had lost some of them would be of no use.
    population::wait_until_passing(server.rpc, targets, Duration::ZERO).await?;

    let share = cpu.as_secs_f64() / elapsed.as_secs_f64() - base.share;
    let per_second = visits as f64 / elapsed.as_secs_f64();
    let each = share * 1e6 / per_second;
    let kilobytes = resident.saturating_sub(base.resident) as f64 / 1_024.0 / f64::from(targets);
    let often = format!("every {} s", interval.as_secs());
    let measured = format!(
        "{:.1} % of a core; {}, {each:.0} µs CPU each (100,000 {often} would be {:.0} %)",
        share * 100.0,
        rate(per_second),
        each * 1e5 / interval.as_secs_f64() / 1e4
    );
    let memory = format!("{kilobytes:.2} KB each, beyond the {:.2} KB of an instance that is not visited", {
        base.resident as f64 / 1_024.0 / f64::from(targets)
    });
    Ok(vec![
        Row::figure(format!("visits of {targets} kept targets {often}"), measured)
            .goal("100,000 every 5 s ≤ 60 % of a core", Some(each <= EACH)),
        Row::figure(format!("memory of {targets} kept targets"), memory).goal("≤ 3 KB each", Some(kilobytes <= 3.0)),
    ])
}

/// As many as the server can keep connections to: the rest of its open files are for whoever calls it.
fn targets(plan: &Plan) -> Result<u32> {
    let (_, files) = rlimit::Resource::NOFILE.get().context("asking for the limit of open files")?;
    Ok(plan.targets.min(u32::try_from(files / 4 * 3).unwrap_or(u32::MAX)))
}

async fn base(plan: &Plan, targets: u32) -> Result<Base> {
    let server = start(plan, targets).await?;
    population::register(server.rpc, targets, move |number| target(number, 7_070, Check::none())).await?;
    population::wait_until_passing(server.rpc, targets, PATIENCE).await?;
    let (start, cpu) = (Instant::now(), server.process.cpu_time()?);
    sleep(plan.interval / 2).await;
    let share = server.process.cpu_time()?.saturating_sub(cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    Ok(Base { share, resident: server.process.resident()? })
}

/// Few clients and many targets: file descriptors go to these.
async fn start(plan: &Plan, targets: u32) -> Result<Server> {
    let setup = Setup::new(Store::Memory).flag("--interval", format!("{}s", plan.interval.as_secs()));
    let setup = setup.flag("--timeout", "1s").flag("--max-connections", 256).flag("--max-http-connections", 16);
    setup.flag("--max-kept", targets * 2).start().await
}

fn target(number: u32, port: u16, check: Check) -> Result<Registration> {
    population::at(number, 1_000, address(number, port), check)
}

async fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(address(0, 0)).await.context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

async fn listeners(targets: u32, port: u16) -> Result<Vec<Helper>> {
    let each = targets.div_ceil(PROCESSES);
    let mut helpers = Vec::new();
    for number in 0..PROCESSES {
        let first = number * each;
        let count = each.min(targets - first);
        let arguments =
            ["listeners", "--first", &first.to_string(), "--count", &count.to_string(), "--port", &port.to_string()];
        helpers.push(Helper::start(Core::Any, &arguments.map(str::to_owned)).await?.0);
    }
    Ok(helpers)
}

/// Visits that were answered so far, as those who were visited count them.
async fn count(listeners: &mut [Helper]) -> Result<u64> {
    let mut sum = 0;
    for listener in listeners {
        let count: u64 = listener.ask("count").await?.parse().context("a listener's count")?;
        sum += count;
    }
    Ok(sum)
}
