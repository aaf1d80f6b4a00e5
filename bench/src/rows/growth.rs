//! What things cost against how many there are, and what very many watchers cost.
//!
//! Where an older release is measured as well, all of it goes over the wire in a version that both speak.

pub(super) mod alone;
pub(super) mod busy;
pub(super) mod change;
pub(super) mod digests;
pub(super) mod namespaces;
pub(super) mod snapshots;
pub(super) mod subset;
pub(super) mod wide;

mod filling;
mod registrar;

use std::path::Path;

use roundsman_protocol::Version;

pub(super) use self::filling::{populate, wait_until_passing};

use crate::{
    plot::Point,
    rows::time,
    server::{Setup, Store},
};

/// The service that grows.
const SERVICE: &str = "grown";

/// A server of that release that takes so many instances and more, all in one namespace and from one connection.
pub(super) fn setup(store: Store, program: Option<&Path>, instances: u32) -> Setup {
    let most = instances.max(200_000) * 2;
    let setup = Setup::new(store).release(program).flag("--max-instances", most);
    let setup = setup.flag_if_known("--max-instances-per-namespace", most);
    setup.flag_if_known("--max-instances-per-connection", most)
}

/// The newest version that the release speaks in postcard: the first one knew one.
fn spoken(program: Option<&Path>) -> Version {
    if program.is_some() { Version::V1 } else { Version::CURRENT }
}

/// What it came to at each size.
fn list(points: &[Point]) -> String {
    let figures = points.iter().map(|point| format!("{}: {}", thousands(point.size), time_in(point.micros)));
    figures.collect::<Vec<_>>().join(", ")
}

/// How many times as much at the largest as at the smallest.
fn growth(points: &[Point]) -> f64 {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => super::ratio(last.micros, first.micros),
        _ => 0.0,
    }
}

/// Microseconds, with a digit more where there are few.
fn time_in(micros: f64) -> String {
    if micros < 100.0 { format!("{micros:.1} µs") } else { time(micros) }
}

/// With commas.
fn thousands(number: u32) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let points = [Point { size: 100, micros: 2.0 }, Point { size: 100_000, micros: 150.0 }];
        assert_eq!(list(&points), "100: 2.0 µs, 100,000: 150 µs");
        assert!((growth(&points) - 75.0).abs() < 1e-9 && growth(&[]) == 0.0);
    }
}
