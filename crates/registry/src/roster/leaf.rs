//! The leaves of a roster: members side by side, and who of them is handed out.

use std::{ops::Deref, sync::Arc};

use smallvec::SmallVec;

use super::{Member, Node, Put, branch::Child};
use crate::tally::Tally;

/// The most members of a leaf, at most as many as the mask has bits. A change touches each member of a leaf, and in a
/// large roster none of them is in the cache: the fewer, the better.
pub(super) const MOST: usize = 16;
/// So many lie in the leaf itself. Most services are that small, and a lookup in them has one place less to go to.
const FEW: usize = 3;

/// Members in order of their keys.
pub(super) struct Leaf<T> {
    pub(super) members: Slots<T>,
    /// Those handed out, by their place.
    handed: u32,
    /// The running sums of their weights; none when all weigh the same.
    sums: Option<Arc<Vec<u32>>>,
}

/// The members of a leaf.
pub(super) enum Slots<T> {
    Few(SmallVec<[T; FEW]>),
    /// Shared by all copies of the leaf.
    Many(Arc<[T]>),
}

// === impl Leaf ===

impl<T: Member> Leaf<T> {
    /// A leaf of so many members that they fit.
    fn new(members: Vec<T>) -> (Tally, Self) {
        let (mut tally, mut handed) = (Tally::default(), 0_u32);
        for (place, member) in members.iter().enumerate() {
            tally.add(&member.tally());
            handed |= u32::from(member.share().is_some()) << place;
        }
        let sums = sums(&members, &tally);
        (tally, Self { members: members.into_iter().collect(), handed, sums })
    }

    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        self.members.get(self.find(key).ok()?)
    }

    /// How many are handed out.
    pub(super) fn available(&self) -> u32 {
        self.handed.count_ones()
    }

    /// Whether all of those weigh the same.
    pub(super) fn is_even(&self) -> bool {
        self.sums.is_none()
    }

    /// One of those handed out, counted from 0.
    pub(super) fn nth(&self, place: u32) -> Option<&T> {
        let place = usize::try_from(place).ok()?;
        // Mostly all are handed out.
        if usize::try_from(self.available()).ok()? == self.members.len() {
            return self.members.get(place);
        }
        let mut left = self.handed;
        for _ in 0..place {
            left &= left.wrapping_sub(1);
        }
        self.members.get(usize::try_from(left.trailing_zeros()).ok()?)
    }

    /// The one of those handed out at whom the sum of the weights passes `point`.
    pub(super) fn at(&self, point: u64) -> Option<&T> {
        let place = match &self.sums {
            Some(sums) => sums.partition_point(|sum| u64::from(*sum) <= point).try_into().ok()?,
            None => u32::try_from(point / u64::from(self.nth(0)?.share()?.max(1))).ok()?,
        };
        self.nth(place)
    }

    /// What stands in this leaf's place after `puts`.
    pub(super) fn after(&self, tally: &Tally, puts: &[Put<T>]) -> Vec<Child<T>> {
        if let [Put { key, member: Some(member) }] = puts
            && let Ok(place) = self.find(key)
        {
            return vec![self.replaced(*tally, place, member)];
        }
        let mut members = Vec::with_capacity(self.members.len() + puts.len());
        let mut rest = &*self.members;
        for Put { key, member } in puts {
            let (before, from) = rest.split_at(rest.partition_point(|known| known.key() < key));
            members.extend_from_slice(before);
            members.extend(member.clone());
            rest = match from.split_first() {
                Some((known, others)) if known.key() == key => others,
                _ => from,
            };
        }
        members.extend_from_slice(rest);
        leaves(members)
    }

    /// The leaf with another member in a place. What is known of the others is taken over: to look at each of them
    /// would cost more than all the rest.
    fn replaced(&self, mut tally: Tally, place: usize, member: &T) -> Child<T> {
        let members = self.members.iter().enumerate();
        let members: Slots<T> =
            members.map(|(n, known)| if n == place { member.clone() } else { known.clone() }).collect();
        if let Some(before) = self.members.get(place) {
            tally.sub(&before.tally());
        }
        tally.add(&member.tally());
        let handed = self.handed & !(1 << place) | u32::from(member.share().is_some()) << place;
        let sums = sums(&members, &tally);
        let first = members.first().unwrap_or(member).key().clone();
        Child { first, tally, node: Node::Leaf(Self { members, handed, sums }) }
    }

    fn find(&self, key: &T::Key) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.key().cmp(key))
    }
}

/// Leaves of about the same size with these members; none when there is none.
pub(super) fn leaves<T: Member>(members: Vec<T>) -> Vec<Child<T>> {
    let count = members.len().div_ceil(MOST);
    let mut members = members.into_iter();
    let mut made = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let size = members.len() / left;
        let (tally, leaf) = Leaf::new(members.by_ref().take(size).collect());
        made.extend(Child::of(tally, Node::Leaf(leaf)));
    }
    made
}

/// The running sums of the weights of those handed out.
fn sums<T: Member>(members: &[T], tally: &Tally) -> Option<Arc<Vec<u32>>> {
    if tally.is_even() {
        return None;
    }
    let weights = members.iter().filter_map(Member::share);
    let sums = weights.scan(0_u32, |sum, weight| {
        *sum = sum.saturating_add(weight);
        Some(*sum)
    });
    Some(Arc::new(sums.collect()))
}

impl<T: Clone> Clone for Leaf<T> {
    fn clone(&self) -> Self {
        Self { members: self.members.clone(), handed: self.handed, sums: self.sums.clone() }
    }
}

impl<T> Default for Leaf<T> {
    fn default() -> Self {
        Self { members: Slots::Few(SmallVec::new()), handed: 0, sums: None }
    }
}

// === impl Slots ===

impl<T> Deref for Slots<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Few(members) => members,
            Self::Many(members) => members,
        }
    }
}

impl<T> FromIterator<T> for Slots<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        let members = members.into_iter();
        if members.size_hint().1.is_some_and(|most| most <= FEW) {
            Self::Few(members.collect())
        } else {
            Self::Many(members.collect())
        }
    }
}

impl<T: Clone> Clone for Slots<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Few(members) => Self::Few(members.clone()),
            Self::Many(members) => Self::Many(Arc::clone(members)),
        }
    }
}
