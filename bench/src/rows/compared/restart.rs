//! A restart with very many stored instances that hang, and one that is dead.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
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
    server::{Server, Setup, Store},
    wire::Wire,
};

/// Time for a visit, and between two.
const TIMEOUT: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(20);
const GOAL: Duration = Duration::from_secs(1);

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let setup = Setup::new(Store::Sqlite).release(program).flag("--start-deadline", "10m");
    let server = setup.clone().start().await?;
    let ports = (free_port().await?, free_port().await?);
    let mut eye = Eye::open(server.rpc, VICTIM).await?;
    let mut victim = Victim::start(0, ports.0).await?;
    victim.register(&mut Wire::open(server.rpc, "default").await?).await?;
    eye.arrivals(1, Instant::now() + PATIENCE).await?;
    let hanging = plan.hung / 5 * 2;
    let _hanging = Hanging::start(server.rpc, hanging, TIMEOUT, TIMEOUT, ports.1).await?;
    // With the registrations it was written, too, that the first one passes.
    let folder = server.kill()?;
    victim.helper.process().kill()?;
    let server = setup.after(folder).start().await?;
    let (gone, took) = wait_until_gone(&server).await?;
    let measured = if gone { duration(took) } else { format!("not within {}", duration(LIMIT)) };
    let what = format!("restart with {hanging} stored that hang (timeout 20 s), to the refused one gone");
    Ok(vec![Row::figure(what, measured).goal("≤ 1 s", Some(gone && took <= GOAL))])
}

/// How long until the only instance of the service is gone.
async fn wait_until_gone(server: &Server) -> Result<(bool, Duration)> {
    let start = Instant::now();
    let mut wire = Wire::open(server.rpc, "default").await?;
    loop {
        let list = wire.call("List", json!({"query": {"services": [VICTIM]}})).await?;
        let gone = list.as_array().is_none_or(Vec::is_empty) && list != Value::Null;
        if gone || start.elapsed() > LIMIT {
            return Ok((gone, start.elapsed()));
        }
        sleep(Duration::from_millis(2)).await;
    }
}
