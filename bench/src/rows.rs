//! What is measured. Each module is one or several rows of the table.

pub(crate) mod kills;
pub(crate) mod visits;

mod births;
mod cached;
mod calls;
mod compared;
mod faults;
mod floor;
mod growth;
mod hung;
mod idle;
mod lookups;
mod memory;
mod pending;
mod resolvers;
mod start;
mod writes;

use clap::ValueEnum;
use futures::future::BoxFuture;

use self::compared::Part;
use crate::{
    error::{Failure, Result},
    plan::Plan,
    report::{self, Report, Row},
};

/// The names for `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    // First what is most easily disturbed: the kernel remembers congestion of the heavier loads for a while.
    /// CPU time per lookup against the floor
    Floor,
    /// One lookup at a time
    Idle,
    /// Lookups, 64 at a time, and the same of the peers
    Lookups,
    /// A lookup in the client's cache
    Cached,
    /// Durable registrations
    Writes,
    /// kill -9 to gone from watchers' maps
    Kills,
    /// kill -9 to gone from resolvers' caches
    Caches,
    /// Calls by name that fail while instances are killed
    Calls,
    /// A hung instance to the last call sent to it
    Hung,
    /// Calls by name to instances that are slow, hang, fail in part, or are not alike
    Faults,
    /// Registered to seen
    Births,
    /// Pending watches
    Pending,
    /// Visits
    Visits,
    /// Memory of a resolver
    Resolvers,
    /// Memory of many instances
    Memory,
    /// Start with many stored instances
    Start,
    /// Deaths and births beside thousands that hang
    Hanging,
    /// A restart with thousands that hang
    Restart,
    /// Lookups beside clients that list everything
    Listing,
    /// A query of a megabyte
    Queries,
    /// Memory that attackers make the server keep
    Attacks,
    /// Thousands of clients that come back at once
    Comeback,
    /// The server itself is stopped for a while
    Frozen,
    /// One change, by the size of its service
    Change,
    /// Very many namespaces
    Namespaces,
    /// Registrations beside a namespace that flips all the time
    Busy,
    /// A watch of very many names
    Wide,
    /// Very many watchers that want everything
    Snapshots,
    /// Very many watchers that know nearly everything
    Digests,
    /// Very many clients with a subset each
    Subset,
}

// === impl Name ===

impl Name {
    fn measure(self, plan: &Plan) -> BoxFuture<'_, Result<Vec<Row>>> {
        match self {
            Self::Lookups => Box::pin(lookups::measure(plan)),
            Self::Floor => Box::pin(floor::measure(plan)),
            Self::Idle => Box::pin(idle::measure(plan)),
            Self::Cached => Box::pin(cached::measure(plan)),
            Self::Writes => Box::pin(writes::measure(plan)),
            Self::Kills => Box::pin(kills::measure(plan)),
            Self::Caches => Box::pin(kills::measure_resolvers(plan)),
            Self::Calls => Box::pin(calls::measure(plan)),
            Self::Hung => Box::pin(hung::measure(plan)),
            Self::Faults => Box::pin(faults::measure(plan)),
            Self::Births => Box::pin(births::measure(plan)),
            Self::Pending => Box::pin(pending::measure(plan)),
            Self::Visits => Box::pin(visits::measure(plan)),
            Self::Resolvers => Box::pin(resolvers::measure(plan)),
            Self::Memory => Box::pin(memory::measure(plan)),
            Self::Start => Box::pin(Part::Start.measure(plan)),
            Self::Hanging => Box::pin(Part::Hanging.measure(plan)),
            Self::Restart => Box::pin(Part::Restart.measure(plan)),
            Self::Listing => Box::pin(Part::Listing.measure(plan)),
            Self::Queries => Box::pin(Part::Queries.measure(plan)),
            Self::Attacks => Box::pin(Part::Attacks.measure(plan)),
            Self::Comeback => Box::pin(Part::Comeback.measure(plan)),
            Self::Frozen => Box::pin(Part::Frozen.measure(plan)),
            Self::Change => Box::pin(both(Part::Change.measure(plan), growth::change::measure_alone(plan))),
            Self::Namespaces => Box::pin(both(Part::Namespaces.measure(plan), growth::namespaces::measure_alone(plan))),
            Self::Busy => Box::pin(Part::Busy.measure(plan)),
            Self::Wide => Box::pin(Part::Wide.measure(plan)),
            Self::Snapshots => Box::pin(Part::Snapshots.measure(plan)),
            Self::Digests => Box::pin(Part::Digests.measure(plan)),
            Self::Subset => Box::pin(growth::subset::measure(plan)),
        }
    }
}

/// Measures all of `only`, or everything when it is empty. Returns whether all of it could be measured.
pub(crate) async fn run(plan: &Plan, only: &[Name], report: &mut Report) -> bool {
    let mut complete = true;
    for &name in Name::value_variants() {
        if !only.is_empty() && !only.contains(&name) {
            continue;
        }
        report::say(&format!("{name:?} …"));
        match name.measure(plan).await {
            Ok(rows) => report.add(rows),
            Err(error) => {
                complete = false;
                report
                    .add([Row::figure(format!("{name:?}").to_lowercase(), format!("could not be measured: {error}"))]);
            }
        }
    }
    complete
}

/// What is measured beside an older release, and then what only this one has.
async fn both(
    compared: impl Future<Output = Result<Vec<Row>>>,
    alone: impl Future<Output = Result<Vec<Row>>>,
) -> Result<Vec<Row>> {
    let mut rows = compared.await?;
    rows.extend(alone.await?);
    Ok(rows)
}

/// The row of a peer that is not there.
fn missing(what: &str, program: &'static str) -> Row {
    Row::figure(what, Failure::Missing(program).to_string())
}

/// A rate, in thousands per second.
fn rate(per_second: f64) -> String {
    let thousands = per_second / 1e3;
    if thousands < 10.0 { format!("{thousands:.1} k/s") } else { format!("{thousands:.0} k/s") }
}

/// Microseconds in the unit that reads best.
fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        ..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// A duration, the same way.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    time(crate::series::micros(duration))
}

/// Rate, latencies and the server's CPU time of each call.
fn load(sample: crate::series::Sample) -> String {
    let crate::series::Sample { rate: per_second, p50, p99, cpu } = sample;
    format!("{}, p50 {}, p99 {}, {cpu:.1} µs CPU each", rate(per_second), time(p50), time(p99))
}

/// How many times as much.
fn ratio(ours: f64, theirs: f64) -> f64 {
    if theirs > 0.0 { ours / theirs } else { 0.0 }
}
