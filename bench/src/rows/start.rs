//! Start with very many stored instances.

use std::{path::Path, time::Duration};

use super::{
    growth::{populate, wait_until_passing},
    time,
};
use crate::{error::Result, plan::Plan, report::Row, rows::growth, series::micros, server::Store, stats::median};

/// A start is short; a few more of them cost nothing.
const STARTS: usize = 5;
const TIME: f64 = 0.3e6;
const MEMORY: f64 = 100.0;

pub(super) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let count = plan.instances;
    let setup = growth::setup(Store::Sqlite, program, count);
    let server = setup.clone().start().await?;
    populate(server.rpc, count, count / 10).await?;
    let mut folder = server.stop().await?;
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let server = setup.clone().after(folder).start().await?;
        starts.push(micros(server.started_in));
        // A start that had forgotten some would be no feat.
        wait_until_passing(server.rpc, count, Duration::from_secs(5)).await?;
        resident.push(server.process.resident()? as f64 / 1e6);
        folder = server.stop().await?;
    }
    let (start, resident) = (median(starts), median(resident));
    let what = format!("start with {count} stored instances, to serving");
    let rows = [
        (Row::figure(what, time(start)), "≤ 0.3 s", start <= TIME),
        (Row::figure("… and then resident", format!("{resident:.0} MB")), "≤ 100 MB", resident <= MEMORY),
    ];
    // The goals are for a hundred thousand.
    let full = count >= 100_000;
    Ok(rows.into_iter().map(|(row, goal, reached)| if full { row.goal(goal, Some(reached)) } else { row }).collect())
}
