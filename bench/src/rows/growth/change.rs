//! What one change costs the server, against the size of its service.

use std::{ops::Range, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SERVICE, alone, filling, growth, list, setup, time_in};
use crate::{
    error::Result,
    plan::Plan,
    plot::{Cost, Point, Whose},
    report::Row,
    series::micros,
    server::{Server, Store},
    stats::median,
    wire::Wire,
};

/// Most changes of one measurement.
const CHANGES: u32 = 5_000;
const REGISTRY_LIMIT: f64 = 50.0;
const GROWTH: f64 = 1.5;

pub(in crate::rows) async fn measure(plan: &Plan, program: Option<&Path>) -> Result<Vec<Row>> {
    let largest = plan.sizes.last().copied().unwrap_or_default();
    let server = setup(Store::Memory, program, largest).start().await?;
    let mut wire = Wire::open(server.rpc, "default").await?;
    let (mut points, mut filled) = (Vec::new(), 0);
    for &size in plan.sizes {
        filling::register(&mut wire, SERVICE, filled..size).await?;
        filled = size;
        let (mut turns, mut rounds) = (Turns { size, taken: 0 }, Vec::new());
        for _ in 0..plan.rounds.min(3) {
            rounds.push(round_of_changes(&server, &mut wire, &mut turns, plan.under_attack / 4).await?);
        }
        turns.undo(&mut wire).await?;
        points.push(Point { size, micros: median(rounds) });
    }
    let times = growth(&points);
    let measured = format!("{}: {times:.1} × as much at the end", list(&points));
    let what = "server CPU for one change, by the size of its service";
    let row = Row::figure(what, measured).goal(format!("≤ {GROWTH} ×"), Some(times <= GROWTH));
    Ok(vec![row.curve(Cost::Change, Whose::Now, points)])
}

/// The same of the registry alone, which is only there as it is now.
pub(in crate::rows) async fn measure_alone(plan: &Plan) -> Result<Vec<Row>> {
    let points = alone::changes(plan.sizes).await?;
    let (times, last) = (growth(&points), points.last().map_or(0.0, |point| point.micros));
    let measured = format!("{}: {times:.1} × as much at the end", list(&points));
    let row = Row::figure("… in the registry alone: one observation carried out", measured);
    let reached = last <= REGISTRY_LIMIT && times <= GROWTH;
    let row = row.goal(format!("≤ {} and ≤ {GROWTH} ×", time_in(REGISTRY_LIMIT)), Some(reached));
    Ok(vec![row.curve(Cost::Change, Whose::Registry, points).compare(&Ok(Vec::new()))])
}

/// Drains of instances all over the service, one after the other, and their ends when all had their turn.
#[derive(Debug)]
struct Turns {
    size: u32,
    taken: u32,
}

/// Microseconds of the server's CPU for each of many changes, one at a time.
async fn round_of_changes(server: &Server, wire: &mut Wire, turns: &mut Turns, time: Duration) -> Result<f64> {
    let (start, cpu) = (Instant::now(), server.process.cpu_time()?);
    let mut changes = 0;
    while changes < CHANGES && (start.elapsed() < time || changes < 10) {
        wire.call("Drain", turns.take()).await?;
        changes += 1;
    }
    let cpu = server.process.cpu_time()?.saturating_sub(cpu);
    Ok(micros(cpu) / f64::from(changes.max(1)))
}

// === impl Turns ===

impl Turns {
    /// The next one, which changes something.
    fn take(&mut self) -> Value {
        let on = (self.taken / self.size).is_multiple_of(2);
        let turn = self.taken;
        self.taken += 1;
        self.drain(turn, on)
    }

    fn drain(&self, turn: u32, on: bool) -> Value {
        // The factor has no divisor in common with the sizes: all have their turn.
        json!({"id": filling::id((turn % self.size).wrapping_mul(7_919) % self.size), "on": on})
    }

    /// Ends all drains.
    async fn undo(&self, wire: &mut Wire) -> Result<()> {
        let drained = self.drained();
        wire.call_all("Drain", drained.map(|turn| Ok(self.drain(turn, false))), filling::TOGETHER).await
    }

    /// Whose drains have begun and not ended.
    fn drained(&self) -> Range<u32> {
        let taken = self.taken % (2 * self.size);
        taken.saturating_sub(self.size)..taken.min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_turn_changes_something_and_all_can_be_undone() {
        let mut turns = Turns { size: 10, taken: 0 };
        let mut drained = BTreeSet::new();
        for _ in 0..53 {
            let turn = turns.take();
            let id = turn["id"].as_str().unwrap().to_owned();
            let changed = if turn["on"] == true { drained.insert(id) } else { drained.remove(&id) };
            assert!(changed, "{turn}");
            let undone: BTreeSet<String> =
                turns.drained().map(|turn| turns.drain(turn, false)["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(undone, drained);
        }
    }
}
