//! The registry without a server around it, in this process: what the data structures cost, and nothing else.

use std::sync::Arc;

use roundsman_protocol::{Clock, Namespace, ServiceName, Timestamp};
use roundsman_registry::{Edit, Health, Key, Limits, Registry};
use tokio::time::Instant;

use super::SERVICE;
use crate::{
    error::{Context, Result},
    isolated::{self, Core},
    plot::Point,
    population,
    series::micros,
    stats::median,
};

/// Registrations that are planned together.
const TOGETHER: u32 = 1_000;
/// Changes between two looks at the clock, and how many such looks.
const CHANGES: usize = 200;
const LOOKS: usize = 50;

/// An instance, and which of its lives is observed.
type Living = (Key, u64);

/// Microseconds for one change of a service, at each size.
pub(super) async fn changes(sizes: &'static [u32]) -> Result<Vec<Point>> {
    isolated::run(Core::Any, move || async move {
        let (registry, now) = (Registry::new(1), Clock::system().now());
        let (mut living, mut points) = (Vec::new(), Vec::new());
        for &size in sizes {
            while living.len() < size as usize {
                let first = u32::try_from(living.len()).context("counting instances")?;
                let numbers = first..size.min(first + TOGETHER);
                living.extend(register(&registry, &Namespace::default(), numbers, now)?);
            }
            points.push(Point { size, micros: observe(&registry, &living, now) });
        }
        Ok(points)
    })
    .await
}

/// Microseconds for one namespace with an instance, since the point before, at each number of them.
pub(super) async fn namespaces(marks: &'static [u32]) -> Result<Vec<Point>> {
    isolated::run(Core::Any, move || async move {
        let (registry, now) = (Registry::new(1), Clock::system().now());
        let (mut made, mut points) = (0, Vec::new());
        for &mark in marks {
            let start = Instant::now();
            for number in made..mark {
                let namespace = Namespace::try_new(&format!("n{number}")).context("a namespace's name")?;
                register(&registry, &namespace, number..number + 1, now)?;
            }
            let each = micros(start.elapsed()) / f64::from(mark.saturating_sub(made).max(1));
            points.push(Point { size: mark, micros: each });
            made = mark;
        }
        Ok(points)
    })
    .await
}

/// Plans and carries out the registrations of these instances.
fn register(
    registry: &Registry,
    namespace: &Namespace,
    numbers: std::ops::Range<u32>,
    now: Timestamp,
) -> Result<Vec<Living>> {
    let mut draft = registry.draft(Limits::default());
    for number in numbers {
        let mut registration = population::instance(number, 1)?;
        registration.name = ServiceName::try_new(SERVICE).context("a service's name")?;
        draft.register(namespace, Arc::new(registration), now).context("registering")?;
    }
    let (edits, _) = draft.finish(Timestamp::default());
    let effects = registry.apply(&edits);
    let records = effects.into_iter().filter_map(|effect| effect.after);
    Ok(records.map(|record| (record.key(), record.asked.incarnation)).collect())
}

/// Microseconds for one observation that changes something, all over the service.
fn observe(registry: &Registry, living: &[Living], now: Timestamp) -> f64 {
    let looks = (0..LOOKS).map(|look| {
        let edits: Vec<Edit> = (0..CHANGES).filter_map(|change| turn(living, look * CHANGES + change, now)).collect();
        let start = Instant::now();
        for edit in &edits {
            registry.apply(std::slice::from_ref(edit));
        }
        micros(start.elapsed()) / edits.len().max(1) as f64
    });
    median(looks)
}

/// Every instance has its turn before one has its second, which takes back its first.
fn turn(living: &[Living], number: usize, now: Timestamp) -> Option<Edit> {
    let count = living.len().max(1);
    let health = if (number / count).is_multiple_of(2) { Health::Suspect } else { Health::Passing };
    living.get(number.wrapping_mul(7_919) % count).map(|living| observation(living, health, now))
}

fn observation((key, incarnation): &Living, health: Health, at: Timestamp) -> Edit {
    Edit::Observe { key: key.clone(), incarnation: *incarnation, health, reason: "200".into(), by: "here".into(), at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_that_is_timed_happens() {
        let points = changes(&[10, 30]).await.unwrap();
        assert_eq!(points.iter().map(|point| point.size).collect::<Vec<_>>(), [10, 30]);
        assert_eq!(namespaces(&[1, 5]).await.unwrap().len(), 2);
        let (registry, now) = (Registry::new(1), Clock::system().now());
        let living = register(&registry, &Namespace::default(), 0..3, now).unwrap();
        assert_eq!((living.len(), registry.len()), (3, 3));
        for number in 0..9 {
            let edit = turn(&living, number, now).unwrap();
            assert_eq!(registry.apply(&[edit]).len(), 1, "an observation that changes nothing would measure nothing");
        }
    }
}
