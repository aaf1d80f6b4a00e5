//! Start with very many stored instances.

use std::time::Duration;

use super::time;
use crate::{
    error::Result,
    plan::Plan,
    population,
    report::Row,
    series::micros,
    server::{Setup, Store},
    stats::median,
};

/// A start is short; a few more of them cost nothing.
const STARTS: usize = 5;

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let count = plan.instances;
    let setup = Setup::new(Store::Sqlite).flag_if_known("--max-instances-per-namespace", count);
    let server = setup.clone().start().await?;
    population::register(server.rpc, count, move |number| population::instance(number, count / 10)).await?;
    let mut folder = server.stop().await?;
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let server = setup.clone().after(folder).start().await?;
        starts.push(micros(server.started_in));
        // A start that had forgotten some would be no feat.
        population::wait_until_passing(server.rpc, count, Duration::from_secs(5)).await?;
        resident.push(server.process.resident()? as f64 / 1e6);
        folder = server.stop().await?;
    }
    let (start, resident) = (median(starts), median(resident));
    Ok(vec![
        Row::figure(
            format!("start with {count} stored instances, to serving"),
            format!("{}; then {resident:.0} MB resident", time(start)),
        )
        .goal("≤ 1 s", Some(start <= 1e6)),
    ])
}
