//! Where each record lies in the table.

use std::collections::{HashMap, hash_map::Entry};

use roundsman_protocol::{InstanceId, Namespace};
use roundsman_registry::Key;
use rusqlite::Connection;

/// No server gives out so many.
pub(super) const REACH: i64 = i64::MAX / 2;

/// The place of each record, and the last one given out.
#[derive(Debug, Default)]
pub(super) struct Places {
    of: HashMap<Key, i64>,
    last: i64,
}

/// What a batch does to the places, once it is committed.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    places: &'a Places,
    changed: Changed,
}

/// The places that a batch gave out, or gave up.
#[derive(Debug)]
pub(super) struct Changed {
    of: HashMap<Key, Option<i64>>,
    last: i64,
}

impl Places {
    /// Those that the table has.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT \"place\", \"namespace\", \"id\" FROM instances")?;
        let mut rows = statement.query([])?;
        let mut places = Self::default();
        while let Some(row) = rows.next()? {
            let place: i64 = row.get(0)?;
            places.skip_to(Some(place));
            let namespace = row.get_ref(1)?.as_str().ok().and_then(|text| Namespace::try_new(text).ok());
            let id = row.get_ref(2)?.as_str().ok().and_then(|text| InstanceId::try_new(text).ok());
            // A row that cannot be read is set aside when records are loaded; here it only keeps its place.
            if let (Some(namespace), Some(id)) = (namespace, id) {
                places.of.entry(Key { namespace, id }).or_insert(place);
            }
        }
        Ok(places)
    }

    /// Takes in one that the table has. The place of an earlier one with the same key, which stays the one we know.
    pub(super) fn add(&mut self, key: Key, place: i64) -> Result<(), i64> {
        self.skip_to(Some(place));
        match self.of.entry(key) {
            Entry::Occupied(earlier) => Err(*earlier.get()),
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                Ok(())
            }
        }
    }

    /// Where a record lies.
    pub(super) fn get(&self, key: &Key) -> Option<i64> {
        self.of.get(key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Leaves out the places up to this one, which may hold rows that nobody asked for.
    pub(super) fn skip_to(&mut self, place: Option<i64>) {
        // Beyond the reach of ours lies only what somebody else numbered; behind it there may be no number left.
        let place = place.filter(|place| *place <= REACH).unwrap_or_default();
        self.last = self.last.max(place);
    }

    pub(super) fn plan(&self) -> Plan<'_> {
        Plan { places: self, changed: Changed { of: HashMap::new(), last: self.last } }
    }

    pub(super) fn carry_out(&mut self, changed: Changed) {
        for (key, place) in changed.of {
            match place {
                Some(place) => drop(self.of.insert(key, place)),
                None => drop(self.of.remove(&key)),
            }
        }
        self.last = changed.last;
    }
}

impl Plan<'_> {
    /// The place of a record, a new one if it has none.
    pub(super) fn put(&mut self, key: Key) -> i64 {
        if let Some(place) = self.find(&key) {
            return place;
        }
        self.changed.last += 1;
        self.changed.of.insert(key, Some(self.changed.last));
        self.changed.last
    }

    /// The place that a record gives up, if it has one.
    pub(super) fn remove(&mut self, key: Key) -> Option<i64> {
        let place = self.find(&key)?;
        self.changed.of.insert(key, None);
        Some(place)
    }

    pub(super) fn done(self) -> Changed {
        self.changed
    }

    /// The place of a record as the batch leaves it.
    pub(super) fn find(&self, key: &Key) -> Option<i64> {
        match self.changed.of.get(key) {
            Some(place) => *place,
            None => self.places.of.get(key).copied(),
        }
    }
}
