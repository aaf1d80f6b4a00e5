//! The services of a query at one moment.

use std::sync::Arc;

use roundsman_protocol::{Cursor, Digest, Instance, InstanceId, Query, ServiceName, digest::ALL_PARTS};

use crate::{
    changes::Changes,
    record::Record,
    roster::{Put, Roster, in_order},
    view::View,
};

/// The services of a query at one moment. Holds on to it for as long as it lives, and costs what changes meanwhile.
#[derive(Clone, Debug)]
pub struct Snapshot {
    cursor: Cursor,
    /// Those that the query names, or all.
    services: Roster<Arc<View>>,
}

/// Where a page ends: the service and the id of its last instance.
pub type Place = (ServiceName, InstanceId);

// === impl Snapshot ===

impl Snapshot {
    /// The services that `query` names, out of all.
    pub(crate) fn of(cursor: Cursor, all: Roster<Arc<View>>, query: &Query) -> Self {
        let services = match query.services.as_slice() {
            [] => all,
            names => names.iter().filter_map(|name| all.get(name)).cloned().collect(),
        };
        Self { cursor, services }
    }

    /// One without any service.
    pub(crate) fn empty(cursor: Cursor) -> Self {
        Self { cursor, services: Roster::default() }
    }

    /// The same services at an earlier moment, from what happened to them after it: up to this moment, or beyond.
    #[must_use]
    pub fn before(&self, changes: &Changes, earlier: Cursor) -> Self {
        let views = changes.undoing().into_iter().map(|(name, mut puts)| {
            in_order(&mut puts);
            let view = match self.services.get(name) {
                Some(view) => view.after(&puts, view.revision),
                None => View::new(name.clone()).after(&puts, 0),
            };
            let key = view.name.clone();
            Put { key, member: if view.records.is_empty() { None } else { Some(Arc::new(view)) } }
        });
        let views: Vec<_> = views.collect();
        Self { cursor: earlier, services: self.services.after(&views) }
    }

    /// The moment.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many records there are, in whatever status.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.tally().len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// How many bytes its records take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.services.tally().bytes()
    }

    /// One record, whether or not a query matches it.
    #[must_use]
    pub fn find(&self, id: &InstanceId) -> Option<&Arc<Record>> {
        self.services.iter().find_map(|view| view.records.get(id))
    }

    /// One instance, if the query matches it.
    #[must_use]
    pub fn one(&self, query: &Query, id: &InstanceId) -> Option<Arc<Instance>> {
        let record = self.find(id).filter(|record| query.describes(&record.instance))?;
        Some(answer(record, query.history))
    }

    /// The instances that a query matches, by service and id.
    pub fn matching<'a>(&'a self, query: &'a Query) -> impl Iterator<Item = Arc<Instance>> + 'a {
        self.matching_after(query, ALL_PARTS, None)
    }

    /// The same for those in some parts of a digest and after a place, which need not be that of an instance.
    pub fn matching_after<'a>(
        &'a self,
        query: &'a Query,
        parts: u64,
        after: Option<&'a Place>,
    ) -> impl Iterator<Item = Arc<Instance>> + 'a {
        self.records_after(query, parts, after).map(|record| answer(record, query.history))
    }

    /// The next instances that a query matches, of those in some parts: as many as take about `max_bytes` in memory, at
    /// least one. Also where the page ends, when there are more.
    #[must_use]
    pub fn page(
        &self,
        query: &Query,
        parts: u64,
        after: Option<&Place>,
        max_bytes: usize,
    ) -> (Vec<Arc<Instance>>, Option<Place>) {
        let (mut instances, mut bytes) = (Vec::new(), 0_usize);
        let mut last: Option<&Arc<Record>> = None;
        for record in self.records_after(query, parts, after) {
            bytes = bytes.saturating_add(record.bytes());
            if bytes > max_bytes
                && let Some(Instance { name, id, .. }) = last.map(|record| &*record.instance)
            {
                return (instances, Some((name.clone(), id.clone())));
            }
            instances.push(answer(record, query.history));
            last = Some(record);
        }
        (instances, None)
    }

    /// What the instances that a query matches add up to. Their number hardly matters, unless the query looks into them.
    #[must_use]
    pub fn digest(&self, query: &Query) -> Digest {
        let mut digest = Digest::default();
        if looks_inside(query) {
            let records = self.records_after(query, ALL_PARTS, None);
            records.for_each(|record| digest.add(&record.instance.id, record.fingerprint));
        } else {
            self.services.iter().for_each(|view| view.add_to(&mut digest, query.scope));
        }
        digest
    }

    /// Whether the instances that a query matches add up to a digest, when that is known without looking at them.
    #[must_use]
    pub fn adds_up_to(&self, query: &Query, known: &Digest) -> Option<bool> {
        let sums = || self.services.tally().in_scope(query.scope);
        (!looks_inside(query)).then(|| sums() == (known.count, known.sum))
    }

    /// The parts in which the instances that a query matches differ from those of a digest, as a bitmask.
    #[must_use]
    pub fn parts_that_differ(&self, query: &Query, known: &Digest) -> u64 {
        if self.adds_up_to(query, known) == Some(true) {
            return 0;
        }
        self.digest(query).parts_that_differ(known)
    }

    fn records_after<'a>(
        &'a self,
        query: &'a Query,
        parts: u64,
        after: Option<&'a Place>,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let views = match after {
            Some((service, _)) => self.services.from(service),
            None => self.services.iter(),
        };
        let records = views.flat_map(move |view| match after {
            Some((service, id)) if *service == view.name => view.records.beyond(id),
            _ => view.records.iter(),
        });
        records.filter(move |record| {
            // The services are those of the query already.
            query.describes(&record.instance) && (parts == ALL_PARTS || record.instance.id.part_mask() & parts != 0)
        })
    }
}

/// Whether a query matches by more than service and status.
fn looks_inside(query: &Query) -> bool {
    !query.tags.is_empty() || !query.meta.is_empty() || query.zone.is_some() || query.version.is_some()
}

/// The instance as it is answered.
fn answer(record: &Record, history: bool) -> Arc<Instance> {
    if !history {
        return Arc::clone(&record.instance);
    }
    Arc::new(Instance { history: record.flips().into(), ..Instance::clone(&record.instance) })
}
