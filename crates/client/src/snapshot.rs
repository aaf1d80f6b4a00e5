//! What a resolver knows at one moment.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::Instance;
use tokio::time::Instant;

/// The instances that a [`Resolver`](crate::Resolver) knew at one moment. Never changes; what comes later is
/// another snapshot.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// let snapshot = discovery.resolver("product").await?.snapshot();
/// match snapshot.stale() {
///     None => println!("{} instances", snapshot.instances().len()),
///     Some(age) => println!("{} instances as of {age:?} ago", snapshot.instances().len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    instances: Arc<[Arc<Instance>]>,
    stale: Option<Stale>,
    known: bool,
}

/// Since when something was not confirmed by a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    since: Instant,
    /// How old it was already at that moment.
    before: Duration,
}

// === impl Snapshot ===

impl Snapshot {
    /// Before the first answer.
    pub(crate) fn unknown(stale: Stale) -> Self {
        Self { instances: Arc::from([]), stale: Some(stale), known: false }
    }

    /// What the instances are, and since when that is no longer certain.
    pub(crate) fn known(instances: Vec<Arc<Instance>>, stale: Option<Stale>) -> Self {
        Self { instances: instances.into(), stale, known: true }
    }

    /// All instances, sorted by service and id.
    #[must_use]
    pub fn instances(&self) -> &Arc<[Arc<Instance>]> {
        &self.instances
    }

    /// For how long no server has confirmed this list; `None` while it is followed as it changes.
    ///
    /// A stale list is the last good one: no server can be reached, the one that was reached has just started
    /// and knows nobody yet, or the list was read from the [snapshot file](crate::Builder::snapshot_file).
    #[must_use]
    pub fn stale(&self) -> Option<Duration> {
        self.stale.map(Stale::age)
    }

    /// Whether a server has answered at all, or a snapshot file was read in its place.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether nobody would notice a difference.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.known == other.known
            && self.stale == other.stale
            && self.instances.len() == other.instances.len()
            && self.instances.iter().zip(other.instances.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

// === impl Stale ===

impl Stale {
    pub(crate) fn since(since: Instant) -> Self {
        Self { since, before: Duration::ZERO }
    }

    /// Something that was `before` old at `since`.
    pub(crate) fn aged(since: Instant, before: Duration) -> Self {
        Self { since, before }
    }

    fn age(self) -> Duration {
        self.since.elapsed().saturating_add(self.before)
    }

    /// Of two, the one that is older.
    pub(crate) fn older(self, other: Self) -> Self {
        // Both age alike, so that any moment will do for the comparison.
        let now = self.since.max(other.since);
        let at = |stale: Self| now.duration_since(stale.since).saturating_add(stale.before);
        if at(self) >= at(other) { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_counts_what_was_before() {
        let start = Instant::now();
        let lost = Stale::since(start);
        tokio::time::advance(Duration::from_secs(3)).await;
        let read = Stale::aged(Instant::now(), Duration::from_secs(60));
        assert_eq!((lost.age(), read.age()), (Duration::from_secs(3), Duration::from_secs(60)));
        assert_eq!((lost.older(read), read.older(lost)), (read, read));
        tokio::time::advance(Duration::from_secs(1)).await;
        let snapshot = Snapshot::known(Vec::new(), Some(read));
        assert_eq!(snapshot.stale(), Some(Duration::from_secs(61)));
    }
}
