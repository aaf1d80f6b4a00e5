//! Small numbers instead of texts: a pair of numbers takes eight bytes, whatever the names are.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Values by name and by number. The number of one that is gone is given to another.
#[derive(Debug)]
pub(super) struct Numbered<K, V> {
    /// Never walked through: its order is another in each process.
    numbers: HashMap<K, u32>,
    values: Vec<Option<V>>,
    free: Vec<u32>,
}

impl<K: Hash + Eq, V> Numbered<K, V> {
    pub(super) fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn number<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.numbers.get(name).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&V> {
        self.values.get(usize::try_from(number).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut V> {
        self.values.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// Adds a value under a name that is not in use. `None` when there are four billion.
    pub(super) fn insert(&mut self, name: K, value: V) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => u32::try_from(self.values.len()).ok()?,
        };
        match self.get_slot(number) {
            Some(slot) => *slot = Some(value),
            None => self.values.push(Some(value)),
        }
        self.numbers.insert(name, number);
        Some(number)
    }

    /// Forgets a name. The value is found by its number until [`Numbered::release`].
    pub(super) fn unname<Q: Hash + Eq + ?Sized>(&mut self, name: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.numbers.remove(name)
    }

    /// Drops a value whose name is forgotten.
    pub(super) fn release(&mut self, number: u32) -> Option<V> {
        let value = self.get_slot(number)?.take()?;
        self.free.push(number);
        Some(value)
    }

    /// All values, those whose names are forgotten included, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        (0..).zip(&self.values).filter_map(|(number, value)| Some((number, value.as_ref()?)))
    }

    fn get_slot(&mut self, number: u32) -> Option<&mut Option<V>> {
        self.values.get_mut(usize::try_from(number).ok()?)
    }
}
