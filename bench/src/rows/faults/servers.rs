//! A Roundsman server that hangs, beside one that does not.

use roundsman::Discovery;
use tokio::time::Instant;

use crate::{
    error::{Context, Result},
    herd::Herd,
    report::Row,
    rows::{duration, kills::SERVICE},
    server::{Setup, Store},
};

/// The most that a first lookup may take: another server is asked after 300 ms.
const GOAL: std::time::Duration = std::time::Duration::from_millis(500);

/// The first lookup of a caller whose first server hangs.
pub(super) async fn frozen() -> Result<Row> {
    let (hung, well) = (Setup::new(Store::Memory).start().await?, Setup::new(Store::Memory).start().await?);
    let _herd = Herd::start(well.rpc, 1).await?;
    hung.process.freeze()?;
    let start = Instant::now();
    let servers = format!("{},{}", hung.rpc, well.rpc);
    let discovery = Discovery::connect(servers).await.context("connecting")?;
    discovery.get(SERVICE).await.context("looking up")?;
    let took = start.elapsed();
    let what = "the first lookup of a caller whose first server hangs (SIGSTOP), beside a second one";
    Ok(Row::figure(what, duration(took)).goal("≤ 500 ms", Some(took <= GOAL)))
}
