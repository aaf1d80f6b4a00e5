//! Instances on their way to a page: of which moment, which of them, and where the next page begins.

use std::sync::Arc;

#[cfg(test)]
use roundsman_protocol::Query;
use roundsman_protocol::{
    Bookmark, Cursor, Instance, Invalid,
    digest::{ALL_PARTS, PARTS},
};
#[cfg(test)]
use roundsman_registry::Snapshot;
use roundsman_registry::snapshot::Place;

use super::{bookmarks::Mark, moments::Moment};

/// Instances that are to be put on pages.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) moment: Arc<Moment>,
    pub(crate) cut: Cut,
}

/// Which instances of a moment, and of which answer they are a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    /// The moment that the answer began with, which may be another one.
    pub(crate) first: Cursor,
    /// Those in these parts of a digest, as a bitmask.
    pub(super) parts: u64,
    /// And after this place.
    pub(super) after: Option<Place>,
}

// === impl Reading ===

impl Reading {
    /// Everything at a moment.
    #[cfg(test)]
    pub(crate) fn whole(query: Query, snapshot: Snapshot) -> Self {
        let moment = Moment::now(query, snapshot);
        let cut = Cut { first: moment.cursor(), parts: ALL_PARTS, after: None };
        Self { moment, cut }
    }

    /// The instances, as far as they go.
    pub(crate) fn instances(&self) -> impl Iterator<Item = Arc<Instance>> {
        let Cut { parts, after, .. } = &self.cut;
        self.moment.snapshot().matching_after(self.moment.query(), *parts, after.as_ref())
    }
}

// === impl Cut ===

impl Cut {
    /// Some parts, after an instance.
    #[cfg(test)]
    pub(crate) fn of(first: Cursor, parts: u64, last: &Instance) -> Self {
        Self { first, parts, after: Some((last.name.clone(), last.id.clone())) }
    }

    /// Whether the answer is about all parts.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts == ALL_PARTS
    }

    /// The parts that the answer is about, none when it is about all.
    pub(crate) fn parts(&self) -> Vec<u8> {
        let parts = (0..u8::try_from(PARTS).unwrap_or(u8::MAX)).filter(|part| self.parts >> part & 1 == 1);
        if self.is_whole() { Vec::new() } else { parts.collect() }
    }

    /// Where the answer goes on when this page ends with an instance.
    ///
    /// # Errors
    /// Never: names and ids are short and printable.
    pub(crate) fn next(&self, last: &Instance) -> Result<Bookmark, Invalid> {
        let place = (last.name.clone(), last.id.clone());
        Mark { first: self.first, parts: self.parts, place }.write()
    }
}
