//! Calls by name while instances are killed under them.

use std::time::Duration;

use roundsman::Discovery;
use tokio::time::sleep;

use super::duration;
use crate::{
    error::{Context, Result},
    herd::Herd,
    pace::{Outcomes, Pace},
    plan::Plan,
    report::Row,
    rows::kills::SERVICE,
    server::{Setup, Store},
};

/// Instances at any time.
const INSTANCES: usize = 4;
/// Between two kills.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let repeated = under_kills(plan, 2).await?;
    let single = under_kills(plan, 1).await?;
    let (kills, rate) = (plan.call_kills, plan.call_rate);
    let what = format!(
        "calls that fail while one of {INSTANCES} instances is killed (-9) {kills} times, {rate} calls/s, one retry"
    );
    let failure = repeated.failure.as_ref().map_or_else(String::new, |failure| format!(" ({failure})"));
    let measured = format!(
        "{} of {}{failure}, {} repeated, p99 {}, longest {}",
        repeated.failed,
        repeated.calls(),
        repeated.repeated,
        duration(repeated.latencies.p99()),
        duration(repeated.latencies.max()),
    );
    let without = format!("{} of {}", single.failed, single.calls());
    Ok(vec![
        Row::figure(what, measured).goal("0", Some(repeated.failed == 0)),
        Row::figure("… without a retry", without),
    ])
}

/// Calls go on while instances are replaced, one after the other: each new one serves before an old one is killed.
async fn under_kills(plan: &Plan, tries: u32) -> Result<Outcomes> {
    let server = Setup::new(Store::Sqlite).start().await?;
    let mut herd = Herd::start(server.rpc, INSTANCES).await?;
    let discovery = Discovery::connect(server.rpc.to_string()).await.context("connecting to the server")?;
    let kills = plan.call_kills;
    let killing = async move {
        sleep(PAUSE).await;
        for _ in 0..kills {
            herd.grow().await?;
            sleep(PAUSE).await;
            if let Some((_, mut oldest)) = herd.oldest() {
                oldest.process().kill()?;
            }
            herd.settle().await?;
        }
        sleep(PAUSE).await;
        Ok(())
    };
    Pace::new(&discovery, SERVICE, tries, plan.call_rate).run(killing).await
}
