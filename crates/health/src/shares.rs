//! Fair shares: what waits, by namespace and in it by service, in the order in which it came.
//!
//! Pure. Taken in turns, a namespace or a service with ten thousand entries does not delay another one's only entry.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use roundsman_protocol::{Namespace, ServiceName};

/// On whose account something waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: Namespace,
    pub(crate) service: ServiceName,
}

/// Entries that wait, by owner.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    namespaces: Ring<Namespace, Ring<ServiceName, BTreeMap<u64, T>>>,
    /// The number of the next entry.
    next: u64,
}

/// Members that take turns, and how many entries they have together.
#[derive(Debug)]
struct Ring<K, V> {
    members: BTreeMap<K, V>,
    /// Whose turn it was last.
    last: Option<K>,
    entries: usize,
}

// === impl Shares ===

impl<T> Shares<T> {
    pub(crate) fn len(&self) -> usize {
        self.namespaces.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an entry in. The number is what it is taken out with.
    pub(crate) fn insert(&mut self, owner: &Owner, entry: T) -> u64 {
        let number = self.next;
        self.next += 1;
        let services = self.namespaces.members.entry(owner.namespace.clone()).or_default();
        services.members.entry(owner.service.clone()).or_default().insert(number, entry);
        services.entries += 1;
        self.namespaces.entries += 1;
        number
    }

    /// Takes an entry out, if it is still there.
    pub(crate) fn remove(&mut self, owner: &Owner, number: u64) -> Option<T> {
        let services = self.namespaces.members.get_mut(&owner.namespace)?;
        let entries = services.members.get_mut(&owner.service)?;
        let entry = entries.remove(&number)?;
        if entries.is_empty() {
            services.members.remove(&owner.service);
        }
        services.entries -= 1;
        if services.entries == 0 {
            self.namespaces.members.remove(&owner.namespace);
        }
        self.namespaces.entries -= 1;
        Some(entry)
    }

    /// Takes out whose turn it is: namespaces take turns, in each its services, and in each of these who came first.
    pub(crate) fn take_next(&mut self) -> Option<T> {
        let namespace = self.namespaces.turn()?;
        let services = self.namespaces.members.get_mut(&namespace)?;
        let service = services.turn()?;
        let number = *services.members.get(&service)?.first_key_value()?.0;
        self.remove(&Owner { namespace, service }, number)
    }

    /// Takes out what came first of the service that has the most, in the namespace that has the most. Of several that have
    /// as many, what came first: no name is worse than another.
    pub(crate) fn take_of_most(&mut self) -> Option<T> {
        let namespaces = &self.namespaces.members;
        let most = namespaces.values().map(|services| services.entries).max()?;
        let first_of_most = |(namespace, services): (&Namespace, &Ring<_, BTreeMap<u64, T>>)| {
            let first = |entries: &BTreeMap<u64, T>| entries.first_key_value().map(|(number, _)| *number);
            let most = services.members.iter().max_by_key(|(_, entries)| (entries.len(), Reverse(first(entries))));
            let (service, entries): (&ServiceName, _) = most?;
            Some((first(entries)?, Owner { namespace: namespace.clone(), service: service.clone() }))
        };
        let candidates = namespaces.iter().filter(|(_, services)| services.entries == most).filter_map(first_of_most);
        let (number, owner) = candidates.min_by_key(|(number, _)| *number)?;
        self.remove(&owner, number)
    }
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { namespaces: Ring::default(), next: 0 }
    }
}

// === impl Ring ===

impl<K: Ord + Clone, V> Ring<K, V> {
    /// Whose turn it is now.
    fn turn(&mut self) -> Option<K> {
        let after = match &self.last {
            Some(last) => self.members.range((Excluded(last), Unbounded)).next(),
            None => None,
        };
        let turn = after.or_else(|| self.members.first_key_value())?.0.clone();
        self.last = Some(turn.clone());
        Some(turn)
    }
}

impl<K, V> Default for Ring<K, V> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), last: None, entries: 0 }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn owner(namespace: &str, service: &str) -> Owner {
        Owner { namespace: namespace.parse().unwrap(), service: service.parse().unwrap() }
    }

    fn all(shares: &mut Shares<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| shares.take_next()).collect()
    }

    #[test]
    fn namespaces_take_turns_and_in_them_services() {
        let mut shares = Shares::default();
        for _ in 0..3 {
            shares.insert(&owner("big", "order"), "big order");
        }
        for _ in 0..2 {
            shares.insert(&owner("big", "product"), "big product");
        }
        shares.insert(&owner("small", "order"), "small");
        let turns = ["big order", "small", "big product", "big order", "big product", "big order"];
        assert_eq!(all(&mut shares), turns);
        assert!(shares.is_empty());
    }

    #[test]
    fn who_has_the_most_gives_way_first_and_its_oldest_at_that() {
        let mut shares = Shares::default();
        for n in 0..3 {
            shares.insert(&owner("big", "order"), n);
        }
        for n in 10..12 {
            shares.insert(&owner("big", "product"), n);
        }
        for n in 20..24 {
            shares.insert(&owner("small", "order"), n);
        }
        assert_eq!(shares.take_of_most(), Some(0), "five against four, and of these three against two");
        let rest: Vec<_> = std::iter::from_fn(|| shares.take_of_most()).collect();
        assert_eq!(rest.len(), 8);
        assert!(rest[..4].contains(&20), "{rest:?}");
    }

    #[test]
    fn of_those_who_have_as_many_the_oldest_gives_way() {
        let mut shares = Shares::default();
        for (n, service) in ["order", "product", "basket"].into_iter().enumerate() {
            shares.insert(&owner("shop", service), n);
        }
        assert_eq!(std::iter::from_fn(|| shares.take_of_most()).collect::<Vec<_>>(), [0, 1, 2]);
        for (n, namespace) in ["b", "c", "a"].into_iter().enumerate() {
            shares.insert(&owner(namespace, "order"), n);
        }
        assert_eq!(std::iter::from_fn(|| shares.take_of_most()).collect::<Vec<_>>(), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(steps in proptest::collection::vec((0_u8..4, 0_usize..3, 0_usize..3), 0..200)) {
            let mut shares = Shares::default();
            let mut there = BTreeMap::new();
            for (step, namespace, service) in steps {
                let owner = owner(["a", "b", "c"][namespace], ["x", "y", "z"][service]);
                let taken = match step {
                    0 | 1 => {
                        let number = shares.insert(&owner, shares.next);
                        there.insert(number, owner);
                        continue;
                    }
                    2 => shares.take_next(),
                    _ => {
                        let first = there.iter().next().map(|(number, owner)| (*number, owner.clone()));
                        first.map(|(number, owner)| shares.remove(&owner, number).unwrap())
                    }
                };
                prop_assert_eq!(taken.is_some(), !there.is_empty());
                prop_assert!(taken.is_none_or(|number| there.remove(&number).is_some()));
                prop_assert_eq!(shares.len(), there.len());
            }
        }
    }
}
