//! Finding records by what is in them.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::Arc,
};

use hashbrown::{HashTable, hash_table::Entry};
use roundsman_protocol::{Address, InstanceId, ServiceName};

use crate::record::Record;

/// Something by which records are found.
pub(crate) trait Keyed {
    type Key<'a>: Hash;
    fn key(record: &Record) -> Self::Key<'_>;
    fn has(record: &Record, key: &Self::Key<'_>) -> bool;
}

/// By their ids.
#[derive(Debug)]
pub(crate) struct ById;

/// By where they are: a service has one instance at an address.
#[derive(Debug)]
pub(crate) struct ByPlace;

/// Records, found by a key that each of them holds. A map would hold every key once more, and there are very many records.
pub(crate) struct Index<K> {
    slots: HashTable<Slot>,
    hasher: RandomState,
    keyed: PhantomData<fn() -> K>,
}

/// A record beside the hash of its key: a table that grows need not look at each record.
struct Slot {
    hash: u64,
    record: Arc<Record>,
}

impl Keyed for ById {
    type Key<'a> = &'a InstanceId;
    fn key(record: &Record) -> &InstanceId {
        &record.instance.id
    }
    fn has(record: &Record, key: &&InstanceId) -> bool {
        record.instance.id == **key
    }
}

impl Keyed for ByPlace {
    type Key<'a> = (&'a ServiceName, &'a Address);
    fn key(record: &Record) -> (&ServiceName, &Address) {
        (&record.instance.name, &record.instance.address)
    }
    fn has(record: &Record, (service, address): &(&ServiceName, &Address)) -> bool {
        record.instance.address == **address && record.instance.name == **service
    }
}

impl<K: Keyed> Index<K> {
    pub(crate) fn get(&self, key: K::Key<'_>) -> Option<&Arc<Record>> {
        let hash = self.hasher.hash_one(&key);
        self.slots.find(hash, |slot| slot.hash == hash && K::has(&slot.record, &key)).map(|slot| &slot.record)
    }

    /// Puts `after` in the place of `before`.
    pub(crate) fn replace(&mut self, before: Option<&Arc<Record>>, after: Option<&Arc<Record>>) {
        // Most changes leave the key as it is: then inserting replaces.
        if let Some(before) = before.filter(|before| after.is_none_or(|after| !K::has(after, &K::key(before)))) {
            self.remove(before);
        }
        if let Some(after) = after {
            self.insert(after);
        }
    }

    /// Puts a record in the place of the one with the same key.
    fn insert(&mut self, record: &Arc<Record>) {
        let key = K::key(record);
        let hash = self.hasher.hash_one(&key);
        let same = |slot: &Slot| slot.hash == hash && K::has(&slot.record, &key);
        match self.slots.entry(hash, same, |slot| slot.hash) {
            Entry::Occupied(mut known) => known.get_mut().record = Arc::clone(record),
            Entry::Vacant(place) => drop(place.insert(Slot { hash, record: Arc::clone(record) })),
        }
    }

    /// Takes out the record with the same key.
    fn remove(&mut self, record: &Record) {
        let key = K::key(record);
        let hash = self.hasher.hash_one(&key);
        if let Ok(known) = self.slots.find_entry(hash, |slot| slot.hash == hash && K::has(&slot.record, &key)) {
            known.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { slots: HashTable::new(), hasher: RandomState::new(), keyed: PhantomData }
    }
}

impl<K> fmt::Debug for Index<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("len", &self.slots.len()).finish()
    }
}
