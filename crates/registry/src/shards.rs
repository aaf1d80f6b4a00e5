//! A map that readers look into without waiting, and that one writer changes in small pieces.
//!
//! Its buckets are replaced whole, and hold few entries each. Their number doubles as the map grows; it does not shrink,
//! since what grew once will grow again. Values lie in the buckets themselves: each pointer that a lookup follows leads to
//! memory that is not in the cache. So a value is cloned now and then, by the writer, and readers may still look at the
//! one before.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use smallvec::SmallVec;

/// How many entries a bucket has on average before the buckets are doubled. So many it holds without another pointer.
const LOAD: usize = 2;

/// A map for many readers and one writer at a time.
#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    buckets: ArcSwap<Box<[Bucket<K, V>]>>,
    hasher: RandomState,
    len: AtomicUsize,
}

type Bucket<K, V> = ArcSwapOption<Entries<K, V>>;
type Entries<K, V> = SmallVec<[Entry<K, V>; LOAD]>;

#[derive(Clone, Debug)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
}

// === impl Shards ===

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// Calls `f` with a value, without cloning it.
    pub(crate) fn with<T>(&self, key: &K, f: impl FnOnce(&V) -> T) -> Option<T> {
        let hash = self.hasher.hash_one(key);
        let buckets = self.buckets.load();
        let bucket = buckets.get(place(hash, buckets.len()))?.load();
        let entry = bucket.as_ref()?.iter().find(|entry| entry.hash == hash && entry.key == *key)?;
        Some(f(&entry.value))
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.with(key, V::clone)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// All entries, in no order. What is changed meanwhile may be among them or not.
    pub(crate) fn entries(&self) -> Vec<(K, V)> {
        let mut all = Vec::with_capacity(self.len());
        for bucket in &**self.buckets.load() {
            let bucket = bucket.load();
            let entries = bucket.iter().flat_map(|entries| entries.iter());
            all.extend(entries.map(|entry| (entry.key.clone(), entry.value.clone())));
        }
        all
    }

    /// Puts a value in. Only the writer may call this.
    pub(crate) fn insert(&self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let replaced = self.replace(hash, &key, Some(Entry { hash, key: key.clone(), value }));
        if !replaced && self.len.fetch_add(1, Ordering::Relaxed) + 1 > self.buckets.load().len() * LOAD {
            self.grow();
        }
    }

    /// Takes a value out. Only the writer may call this.
    pub(crate) fn remove(&self, key: &K) {
        if self.replace(self.hasher.hash_one(key), key, None) {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Copies one bucket. Returns whether the key was in it.
    fn replace(&self, hash: u64, key: &K, entry: Option<Entry<K, V>>) -> bool {
        let buckets = self.buckets.load();
        let Some(bucket) = buckets.get(place(hash, buckets.len())) else { return false };
        let before = bucket.load();
        let known = before.as_ref().map_or(&[][..], |entries| entries.as_slice());
        let mut entries = Entries::with_capacity(known.len() + usize::from(entry.is_some()));
        entries.extend(known.iter().filter(|known| known.hash != hash || known.key != *key).cloned());
        let replaced = entries.len() < known.len();
        entries.extend(entry);
        bucket.store(if entries.is_empty() { None } else { Some(Arc::new(entries)) });
        replaced
    }

    fn grow(&self) {
        let buckets = self.buckets.load();
        let mut grown: Vec<Entries<K, V>> = Vec::new();
        grown.resize_with(buckets.len() * 2, Entries::new);
        for bucket in &**buckets {
            for entry in bucket.load().iter().flat_map(|entries| entries.iter()) {
                let place = place(entry.hash, grown.len());
                grown.get_mut(place).into_iter().for_each(|bucket| bucket.push(entry.clone()));
            }
        }
        let grown = grown.into_iter().map(|mut entries| {
            entries.shrink_to_fit();
            if entries.is_empty() { Bucket::empty() } else { Bucket::from_pointee(entries) }
        });
        self.buckets.store(Arc::new(grown.collect()));
    }
}

/// The place of a hash in a power of two of buckets.
fn place(hash: u64, buckets: usize) -> usize {
    // The lower half of a hash is as good as the whole, whatever the size of a pointer.
    usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default() & (buckets - 1)
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let buckets: Box<[Bucket<K, V>]> = Box::new([Bucket::empty()]);
        Self { buckets: ArcSwap::from_pointee(buckets), hasher: RandomState::new(), len: AtomicUsize::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_what_a_map_does(steps in proptest::collection::vec((0..200_u32, proptest::option::of(any::<u32>())), 0..600)) {
            let (shards, mut model) = (Shards::default(), HashMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => {
                        shards.insert(key, value);
                        model.insert(key, value);
                    }
                    None => {
                        shards.remove(&key);
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(shards.get(&key), model.get(&key).copied());
                prop_assert_eq!(shards.len(), model.len());
            }
            let all: HashMap<u32, u32> = shards.entries().into_iter().collect();
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn buckets_stay_short() {
        let shards = Shards::default();
        (0..10_000).for_each(|n: u32| shards.insert(n, n));
        let buckets = shards.buckets.load();
        let longest = buckets.iter().filter_map(|bucket| bucket.load().as_ref().map(|entries| entries.len())).max();
        assert!(longest.unwrap() < 40, "a change copies one of them");
        assert!((0..10_000).all(|n| shards.get(&n) == Some(n)));
    }
}
