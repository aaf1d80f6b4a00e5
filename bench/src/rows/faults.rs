//! Calls by name to instances that are slow, hang, fail in part, or are not alike: each with its own server, instances
//! in processes of their own, and a caller who changed no setting but what a row names.

mod hanging;
mod servers;
mod shares;

use roundsman::{Discovery, http};

use crate::{
    args::Manner,
    error::{Context, Result},
    herd::Herd,
    pace::Outcomes,
    plan::Plan,
    report::Row,
    rows::kills::SERVICE,
    server::{Server, Setup, Store},
};

/// A server, the instances that are called, and who calls them.
struct Scene {
    /// First, so that instances end before their server does.
    herd: Herd,
    discovery: Discovery,
    _server: Server,
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    Ok(vec![
        hanging::slow(plan).await?,
        hanging::frozen(plan).await?,
        hanging::posts(plan).await?,
        hanging::zones(plan).await?,
        hanging::restarted(plan).await?,
        shares::blamed(plan, crate::args::Puts::Reset).await?,
        shares::blamed(plan, crate::args::Puts::Refused).await?,
        shares::equal(plan).await?,
        shares::weighted(plan).await?,
        servers::frozen().await?,
    ])
}

// === impl Scene ===

impl Scene {
    async fn start(instances: &[Manner]) -> Result<Self> {
        let server = Setup::new(Store::Memory).start().await?;
        let herd = Herd::of(server.rpc, instances).await?;
        let discovery = Discovery::connect(server.rpc.to_string()).await.context("connecting to the server")?;
        Ok(Self { herd, discovery, _server: server })
    }

    fn service(&self) -> http::Service {
        self.discovery.http(SERVICE)
    }
}

/// So many instances without a fault.
fn well(count: usize) -> Vec<Manner> {
    vec![Manner::default(); count]
}

/// What came of calls, in words.
fn failed(outcomes: &Outcomes) -> String {
    let why = outcomes.failure.as_ref().map_or_else(String::new, |failure| format!(" ({failure})"));
    format!("{} of {} failed{why}", outcomes.failed, outcomes.calls())
}
