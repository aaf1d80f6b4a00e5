//! Very many clients with a subset each of a service, and what a rolling change moves.

mod clients;

use std::{collections::BTreeMap, time::Duration};

use roundsman_protocol::InstanceId;
use serde_json::json;

use self::clients::Clients;
use super::{SERVICE, filling, setup, thousands};
use crate::{error::Result, plan::Plan, report::Row, server::Store, wire::Wire};

const SIZE: u32 = 20;
const EVEN: f64 = 1.05;
/// As many pairs again as are forced to move may move to keep loads even.
const MOVES: f64 = 2.0;
/// Nobody hears of anything for so long: it is over.
const QUIET: Duration = Duration::from_secs(1);

/// Who has which instances: how many clients each has.
type Loads = BTreeMap<InstanceId, u32>;

pub(in crate::rows) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let (count, instances) = (plan.subset_clients, plan.subset_instances);
    let server = setup(Store::Memory, None, instances).start().await?;
    let mut wire = Wire::open(server.rpc, "default").await?;
    filling::register(&mut wire, SERVICE, 0..instances).await?;
    let mut clients = Clients::start(server.rpc, count, SIZE).await?;
    clients.settle(QUIET).await?;
    let first = spread(&clients.loads()?, instances);
    let changed = instances / 10;
    let (mut forced, before) = (0, clients.gained());
    for number in 0..changed {
        // A new release comes first, and when it is there, one of the old goes.
        filling::register(&mut wire, SERVICE, instances + number..instances + number + 1).await?;
        let mean = f64::from(count * SIZE) / f64::from(instances + 1);
        clients.settle(QUIET / 20).await?;
        let leaving = clients.load_of(&filling::id(number));
        wire.call("Deregister", json!({"id": filling::id(number)})).await?;
        clients.settle(QUIET / 20).await?;
        forced += f64_floor(mean * 0.95) + leaving;
    }
    clients.settle(QUIET).await?;
    let (last, moved) = (spread(&clients.loads()?, instances), clients.gained() - before);
    let times = super::super::ratio(moved as f64, f64::from(forced));
    let loads = format!("max / mean {first:.3}, after the change {last:.3}");
    let (clients, instances) = (thousands(count), thousands(instances));
    let what = format!("{clients} clients with a subset of {SIZE} of {instances} instances: loads");
    let moves = format!("{moved} pairs, of which {forced} were forced: {times:.2} ×");
    Ok(vec![
        Row::figure(what, loads)
            .goal(format!("≤ {EVEN}"), Some(first <= EVEN && last <= EVEN))
            .compare(&Ok(Vec::new())),
        Row::figure(format!("… moved by {changed} instances replaced one after the other"), moves)
            .goal(format!("≤ {MOVES} × the least"), Some(times <= MOVES))
            .compare(&Ok(Vec::new())),
    ])
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of so many pairs is small")]
fn f64_floor(value: f64) -> u32 {
    value.floor().max(0.0) as u32
}

/// The highest load against the mean.
fn spread(loads: &Loads, instances: u32) -> f64 {
    let (sum, most) = loads.values().fold((0, 0), |(sum, most), load| (sum + load, most.max(*load)));
    super::super::ratio(f64::from(most), f64::from(sum) / f64::from(instances.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_counts_instances_that_nobody_has() {
        let loads: Loads = [("a", 3), ("b", 1)].map(|(id, load)| (id.parse().unwrap(), load)).into();
        assert!((spread(&loads, 2) - 1.5).abs() < 1e-9);
        assert!((spread(&loads, 4) - 3.0).abs() < 1e-9);
        assert_eq!(f64_floor(37.9), 37);
    }
}
