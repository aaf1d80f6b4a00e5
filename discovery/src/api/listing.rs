//! The instances that a query matches at one moment, not yet put together: a door may do that at once, elsewhere, or
//! once for many callers.

use roundsman_protocol::{DiscoveryError, Page, Query, Update};
use roundsman_registry::{Look, Snapshot};

use super::caller::{SHORT, Timing};

/// Answers of no more instances are put together at once.
const FEW: usize = 64;

/// The instances that a query matches.
#[derive(Debug)]
pub(crate) struct Listing {
    query: Query,
    snapshot: Snapshot,
    timing: Timing,
}

// === impl Listing ===

impl Listing {
    pub(super) fn new(query: Query, snapshot: Snapshot, timing: Timing) -> Self {
        Self { query, snapshot, timing }
    }

    /// Whether an answer is put together in a moment.
    pub(crate) fn is_small(&self) -> bool {
        self.snapshot.len() <= FEW && self.snapshot.bytes() <= SHORT
    }

    /// The instances, all on one page.
    ///
    /// # Errors
    /// Never: it is as results are counted.
    pub(crate) fn page(self) -> Result<Page, DiscoveryError> {
        let instances = self.snapshot.matching(&self.query).collect();
        self.timing.done(Ok(Page { cursor: self.snapshot.cursor(), instances, next: None }))
    }

    /// The instances, for a watcher.
    ///
    /// # Errors
    /// Never: it is as results are counted.
    pub(crate) fn update(self) -> Result<Update, DiscoveryError> {
        self.timing.done(Ok(Look::Snapshot(self.snapshot).update(&self.query)))
    }

    /// For those who put the answer together themselves. The last one counts the call.
    pub(crate) fn into_parts(self) -> (Query, Snapshot, Timing) {
        (self.query, self.snapshot, self.timing)
    }
}
