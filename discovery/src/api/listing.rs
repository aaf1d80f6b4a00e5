//! The instances that a query matches at one moment, not yet put together: a door may do that at once, elsewhere, or
//! once for many callers.

use std::sync::Arc;

use roundsman_protocol::{Bookmark, Cursor, Digest, DiscoveryError, Invalid, Page, Query, Update, digest::ALL_PARTS};
use roundsman_registry::Snapshot;

use super::{
    bookmarks::Mark,
    caller::{Caller, SHORT, Timing},
    moments::Moment,
    reading::{Cut, Reading},
};
use crate::method::Method;

/// Answers of no more instances are put together at once.
const FEW: usize = 64;
/// When more parts of a watcher's digest differ, it gets everything.
const MANY_PARTS: u32 = 32;

/// An answer with the instances that a query matches, or the rest of one.
#[derive(Debug)]
pub(crate) struct Listing {
    asked: Box<Asked>,
    timing: Timing,
}

/// What an answer is about.
#[derive(Debug)]
struct Asked {
    caller: Caller,
    query: Query,
    begin: Begin,
    /// Whether a watcher asks.
    watched: bool,
}

/// Where an answer begins.
#[derive(Debug)]
enum Begin {
    /// With the first instance, or with the first that a watcher does not know who knows what adds up to this.
    First(Snapshot, Option<Digest>),
    /// Where the page before ended.
    After(Mark),
}

/// What an answer is made of.
#[derive(Debug)]
pub(crate) enum Found {
    /// Just what the watcher knows, at this moment.
    Known(Cursor),
    /// These instances.
    Instances(Reading),
}

// === impl Caller ===

impl Caller {
    /// What a query matches, from the beginning or from a bookmark on.
    pub(super) fn list(
        &self,
        query: Query,
        after: Option<Bookmark>,
        timing: Timing,
    ) -> Result<Listing, DiscoveryError> {
        let begun = match &after {
            Some(bookmark) => Mark::read("after", bookmark).map(Begin::After).map_err(Into::into),
            None => self.snapshot(&query).map(|snapshot| Begin::First(snapshot, None)),
        };
        match begun {
            Ok(begin) => {
                let asked = Box::new(Asked { caller: self.clone(), query, begin, watched: false });
                Ok(Listing { asked, timing })
            }
            Err(error) => timing.done(Err(error)),
        }
    }

    /// Everything, or what a watcher does not know of it.
    pub(super) fn everything(&self, query: Query, snapshot: Snapshot, known: Option<Digest>) -> Listing {
        self.watched(query, Begin::First(snapshot, known))
    }

    /// The rest of what a watcher is told.
    pub(super) fn rest(&self, query: Query, page: &Bookmark) -> Result<Listing, Invalid> {
        Ok(self.watched(query, Begin::After(Mark::read("page", page)?)))
    }

    fn watched(&self, query: Query, begin: Begin) -> Listing {
        let asked = Box::new(Asked { caller: self.clone(), query, begin, watched: true });
        Listing { asked, timing: self.timed(Method::Watch, None) }
    }
}

// === impl Listing ===

impl Listing {
    /// Whether an answer is put together in a moment.
    pub(crate) fn is_small(&self) -> bool {
        self.asked.begin.is_small()
    }

    /// The instances, all on one page.
    ///
    /// # Errors
    /// Never: it is as results are counted.
    pub(crate) fn page(self) -> Result<Page, DiscoveryError> {
        let Self { asked, timing } = self;
        timing.done(Ok(match asked.find() {
            Found::Instances(reading) => {
                Page { cursor: reading.cut.first, instances: reading.instances().collect(), next: None }
            }
            Found::Known(cursor) => Page { cursor, instances: Vec::new(), next: None },
        }))
    }

    /// The instances, for a watcher, all on one page.
    ///
    /// # Errors
    /// Never: it is as results are counted.
    pub(crate) fn update(self) -> Result<Update, DiscoveryError> {
        let Self { asked, timing } = self;
        timing.done(Ok(match asked.find() {
            Found::Instances(reading) => Update {
                snapshot: reading.cut.is_whole(),
                instances: reading.instances().collect(),
                parts: reading.cut.parts(),
                ..Update::unchanged(reading.cut.first)
            },
            Found::Known(cursor) => Update::unchanged(cursor),
        }))
    }

    /// Finds the moment that the answer shows, and what of it. For those who put the answer together themselves: the
    /// last one counts the call.
    ///
    /// # Errors
    /// When too much waits already.
    pub(crate) async fn found(self) -> Result<(Found, Timing), DiscoveryError> {
        let Self { asked, timing } = self;
        if matches!(asked.begin, Begin::First(_, None)) {
            return Ok((asked.find(), timing));
        }
        // It may have to look at every instance.
        let offload = asked.caller.context.offload.clone();
        match offload.run(move || asked.find()).await {
            Ok(found) => Ok((found, timing)),
            Err(busy) => timing.done(Err(busy)),
        }
    }
}

// === impl Asked ===

impl Asked {
    fn find(self) -> Found {
        let Self { caller, query, begin, watched } = self;
        let (moments, namespace) = (&caller.context.moments, &caller.namespace);
        let is_small = begin.is_small();
        match begin {
            Begin::First(snapshot, known) => {
                let moment = if is_small {
                    Moment::now(query, snapshot)
                } else {
                    // Who knows something must not be taken back to an earlier moment.
                    moments.begin(namespace, query, snapshot, watched && known.is_none())
                };
                unknown(moment, known.as_ref())
            }
            Begin::After(Mark { first, parts, place }) => {
                let moment = moments.go_on(namespace, query, first);
                Found::Instances(Reading { moment, cut: Cut { first, parts, after: Some(place) } })
            }
        }
    }
}

// === impl Begin ===

impl Begin {
    fn is_small(&self) -> bool {
        match self {
            Self::First(snapshot, _) => snapshot.len() <= FEW && snapshot.bytes() <= SHORT,
            Self::After(_) => false,
        }
    }
}

/// What of a moment a watcher does not know.
fn unknown(moment: Arc<Moment>, known: Option<&Digest>) -> Found {
    let first = moment.cursor();
    let parts = match known.map_or(ALL_PARTS, |known| moment.parts_that_differ(known)) {
        0 => return Found::Known(first),
        parts if parts.count_ones() > MANY_PARTS => ALL_PARTS,
        parts => parts,
    };
    Found::Instances(Reading { moment, cut: Cut { first, parts, after: None } })
}
