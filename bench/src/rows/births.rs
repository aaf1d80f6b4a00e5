//! From registering to seen by a thousand watchers.

use std::time::Duration;

use tokio::time::Instant;

use super::duration;
use crate::{
    error::{Failure, Result},
    plan::Plan,
    population,
    report::Row,
    rpc::{self, Connection},
    server::{Setup, Store},
    stats::Latencies,
    watchers::{Change, Watchers},
};

const GOAL: Duration = Duration::from_millis(15);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Sqlite).start().await?;
    let service = population::service(0)?;
    let (connections, each) = (plan.watcher_connections, plan.watches_each);
    let mut watchers = Watchers::start(server.rpc, &service, connections, each).await?;
    let connection = Connection::open(server.rpc).await?;
    let (mut all, mut last) = (Latencies::new()?, Latencies::new()?);
    for number in (0..).take(plan.births) {
        let registration = population::instance(number, 1)?;
        let start = Instant::now();
        let registered = connection.client.register(rpc::within(PATIENCE), registration).await;
        let id = rpc::answer("registering", registered)?.id;
        let seen = watchers.all_saw(Change::Here, &id, start).await?;
        last.record(seen.max());
        all.add(&seen)?;
        let answer = connection.client.deregister(rpc::within(PATIENCE), id.clone()).await;
        rpc::answer("deregistering", answer)?;
        watchers.all_saw(Change::Gone, &id, start).await?;
    }
    if all.count() == 0 {
        return Err(Failure::new("watching", "nobody saw anything"));
    }
    let what = format!("register to seen by {} watchers on {connections} connections", connections * each);
    let measured = format!(
        "p50 {}, p99 {}; the last of them: p50 {}",
        duration(all.p50()),
        duration(all.p99()),
        duration(last.p50())
    );
    Ok(vec![Row::figure(what, measured).goal("p99 ≤ 15 ms", Some(all.p99() <= GOAL))])
}
