//! Memory of very many instances.

use std::time::Duration;

use crate::{
    error::Result,
    plan::Plan,
    population,
    report::Row,
    server::{Setup, Store},
};

const MEGABYTE: f64 = 1_000_000.0;
/// Instances of each service.
const EACH: u32 = 10;

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let count = plan.instances;
    let server = Setup::new(Store::Memory).flag_if_known("--max-instances-per-namespace", count).start().await?;
    let empty = server.process.resident()? as f64;
    population::register(server.rpc, count, move |number| population::instance(number, count / EACH)).await?;
    population::wait_until_passing(server.rpc, count, Duration::from_secs(30)).await?;
    let full = server.process.resident()? as f64;
    let measured = format!(
        "{:.0} MB resident, {:.0} MB without any: {:.0} B an instance",
        full / MEGABYTE,
        empty / MEGABYTE,
        (full - empty) / f64::from(count)
    );
    let row = Row::figure(format!("memory with {count} instances in {} services", count / EACH), measured);
    // The goal is for a hundred thousand; what a server takes without any does not shrink with the plan.
    Ok(vec![if count < 100_000 { row } else { row.goal("≤ 100 MB", Some(full <= 100.0 * MEGABYTE)) }])
}
