//! From `kill -9` to gone from every watcher's map, and from every resolver's cache.

use std::time::Duration;

use roundsman_protocol::{Check, InstanceId, Registration, ServiceName};
use tokio::time::{Instant, sleep};

use super::duration;
use crate::{
    error::{Context, Result},
    isolated::Core,
    plan::Plan,
    process::Helper,
    report::Row,
    rpc::{self, Connection},
    server::{Server, Setup, Store},
    stats::Latencies,
    watchers::{Change, Watchers},
};

/// What the instances are called.
pub(crate) const SERVICE: &str = "victim";

const GOAL: Duration = Duration::from_millis(50);
/// Of resolvers, which only watch and do nothing else.
const RESOLVERS: Duration = Duration::from_millis(20);

/// Who registered the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Itself: its RPC connection and the checks' connection break.
    Itself,
    /// Somebody else: only the checks' connection breaks.
    Another,
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Sqlite).start().await?;
    let service = ServiceName::try_new(SERVICE).context("a service's name")?;
    let mut watchers = Watchers::start(server.rpc, &service, plan.mourners, 1).await?;
    let mut rows = Vec::new();
    for (by, how) in
        [(By::Itself, "registered by itself"), (By::Another, "registered by another, known by its checks alone")]
    {
        // The last watcher's time, one for each kill.
        let mut last = Latencies::new()?;
        let (mut slow, mut slowest) = (0, None);
        for number in 0..plan.kills {
            let took = kill(&server, &mut watchers, by, number).await?.max();
            last.record(took);
            slow += usize::from(took > GOAL);
            if slowest.as_ref().is_none_or(|(longest, _)| took > *longest) {
                slowest = Some((took, watchers.reason().to_owned()));
            }
        }
        let what = format!("kill -9 to gone from the caches of {} watchers, {how}", plan.mourners);
        let (p50, p99, count) = (duration(last.p50()), duration(last.p99()), last.count());
        let (longest, reason) = slowest.unwrap_or_default();
        let longest = duration(longest);
        let measured = format!("p50 {p50}, p99 {p99}, {slow} of {count} over 50 ms; slowest {longest} ({reason})");
        rows.push(Row::figure(what, measured).goal("p99 ≤ 50 ms", Some(last.p99() <= GOAL)));
    }
    Ok(rows)
}

/// The same for resolvers, each with a connection of its own, as callers in as many processes would have.
pub(super) async fn measure_resolvers(plan: &Plan) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Sqlite).start().await?;
    let service = ServiceName::try_new(SERVICE).context("a service's name")?;
    let mut resolvers = Watchers::resolving(server.rpc, &service, plan.mourners).await?;
    let (mut all, mut last) = (Latencies::new()?, Latencies::new()?);
    for number in 0..plan.kills {
        let took = kill(&server, &mut resolvers, By::Itself, number).await?;
        last.record(took.max());
        all.add(&took)?;
    }
    let measured = format!(
        "p50 {}, p99 {}; the last of them: p50 {}, p99 {} ({} kills)",
        duration(all.p50()),
        duration(all.p99()),
        duration(last.p50()),
        duration(last.p99()),
        last.count(),
    );
    let what = format!("kill -9 to gone from the caches of {} resolvers", plan.mourners);
    Ok(vec![Row::figure(what, measured).goal("p99 ≤ 20 ms", Some(all.p99() <= RESOLVERS))])
}

/// Starts an instance, waits until all know it, kills it, and returns how long it took each of them to know.
async fn kill(server: &Server, watchers: &mut Watchers, by: By, number: usize) -> Result<Latencies> {
    let id = InstanceId::try_new(&format!("{SERVICE}-{by:?}-{number}")).context("an id")?;
    let mut arguments = vec!["target".to_owned(), "--id".to_owned(), id.to_string()];
    if by == By::Itself {
        arguments.extend(["--server".to_owned(), server.rpc.to_string()]);
    }
    let (mut target, address) = Helper::start(Core::Any, &arguments).await?;
    if by == By::Another {
        let connection = Connection::open(server.rpc).await?;
        let name = ServiceName::try_new(SERVICE).context("a service's name")?;
        let registration = Registration {
            id: Some(id.clone()),
            check: Check::default(),
            ..Registration::new(name, address.parse().context("an instance's address")?)
        };
        let answer = connection.client.register(rpc::within(Duration::from_secs(10)), registration).await;
        rpc::answer("registering", answer)?;
    }
    watchers.all_saw(Change::Here, &id, Instant::now()).await?;
    // At another moment of its life each time.
    sleep(Duration::from_millis(20 + (number as u64 * 37) % 80)).await;
    let start = Instant::now();
    target.process().kill()?;
    watchers.all_saw(Change::Gone, &id, start).await
}
