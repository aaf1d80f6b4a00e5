//! What a pending watch and a connection cost in the server's memory.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Query, rpc::Wait};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    error::{Failure, Result},
    plan::Plan,
    population,
    report::Row,
    rpc::{self, Connection},
    server::{Setup, Store},
};

const CONNECTIONS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the watches wait: longer than the measurement.
const WAIT: Duration = Duration::from_secs(240);

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Memory).start().await?;
    let watches = CONNECTIONS * plan.pending_each;
    let observer = Connection::open(server.rpc).await?;
    let first =
        observer.client.watch(rpc::within(PATIENCE), Query::default(), None, Wait(Duration::ZERO), None, None).await;
    let cursor = rpc::answer("watching", first)?.cursor;
    let empty = server.process.resident()?;
    let mut connections = Vec::new();
    for connection in Connection::open_many(server.rpc, CONNECTIONS).await? {
        // Both ends have their buffers once a call was made.
        rpc::answer("asking", connection.client.services(rpc::within(PATIENCE)).await)?;
        connections.push(Arc::new(connection));
    }
    let connected = server.process.resident()?;
    let mut pending = JoinSet::new();
    for (number, connection) in (0..).zip(connections.iter().cycle().take(watches)) {
        let query = Query::service(population::service(number % 10_000)?);
        let connection = Arc::clone(connection);
        pending.spawn(async move {
            let answer =
                connection.client.watch(rpc::within(WAIT * 2), query, Some(cursor), Wait(WAIT), None, None).await;
            rpc::answer("watching", answer)
        });
    }
    wait_for(&observer, watches as u64).await?;
    if let Some(Ok(ended)) = pending.try_join_next() {
        return Err(ended.map_or_else(|error| error, |_| Failure::new("watching", "a watch did not wait")));
    }
    let full = server.process.resident()?;
    let each = |more: u64, less: u64, count: usize| more.saturating_sub(less) as f64 / 1_024.0 / count as f64;
    let measured = format!(
        "{:.1} KB each in the server, {:.0} KB a connection",
        each(full, connected, watches),
        each(connected, empty, CONNECTIONS)
    );
    let what = format!("{watches} pending watches on {CONNECTIONS} connections");
    Ok(vec![Row::figure(what, measured).goal(format!("{watches} held"), Some(true))])
}

/// Waits until the server says that so many watches wait.
async fn wait_for(observer: &Connection, watches: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = observer.client.status(rpc::within(PATIENCE)).await;
        let waiting = rpc::answer("asking for the status", status)?.doors.watches;
        if waiting >= watches {
            return Ok(());
        }
        if Instant::now() > end {
            let what = format!("{watches} pending watches ({waiting} are)");
            return Err(Failure::Late { what, limit: PATIENCE });
        }
        sleep(Duration::from_millis(50)).await;
    }
}
