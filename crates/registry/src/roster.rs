//! A persistent list in order of a key, with sums: a change copies one path from the root, whatever the size, and leaves
//! every earlier list as it was.
//!
//! Leaves of up to 16 members, all at one depth; branches above them carry the sums of what is below. A list of few
//! members is one leaf and no tree.

mod branch;
mod leaf;
mod members;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub(crate) use self::members::Members;
use self::{
    branch::{Child, above, grouped},
    leaf::Leaf,
};
use crate::tally::Tally;

/// Something that a roster lists.
pub(crate) trait Member: Clone {
    /// By what it is found, and in what order it is listed.
    type Key: Ord + Clone;
    fn key(&self) -> &Self::Key;
    /// What it adds to the sums.
    fn tally(&self) -> Tally;
    /// Its weight, if it is handed out.
    fn share(&self) -> Option<u32>;
}

/// Members by key, none twice.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Roster<T: Member> {
    /// First, so that it lies together with what is in front of the roster: all that a lookup needs of a small one.
    root: Node<T>,
    tally: Tally,
}

/// What is to be in a place from now on.
#[derive(Debug)]
pub(crate) struct Put<T: Member> {
    pub(crate) key: T::Key,
    pub(crate) member: Option<T>,
}

enum Node<T: Member> {
    Leaf(Leaf<T>),
    Branch(Arc<[Child<T>]>),
}

// === impl Put ===

/// Brings the puts into the order that [`Roster::after`] wants. Of several for one key the last one counts.
pub(crate) fn in_order<T: Member>(puts: &mut Vec<Put<T>>) {
    puts.reverse();
    puts.sort_by(|a, b| a.key.cmp(&b.key));
    puts.dedup_by(|earlier, kept| earlier.key == kept.key);
}

// === impl Roster ===

impl<T: Member> Roster<T> {
    /// The roster after `puts`, which are in order of their keys, each key once.
    pub(crate) fn after(&self, puts: &[Put<T>]) -> Self {
        let mut level = self.root.after(&self.tally, puts);
        while level.len() > 1 {
            level = grouped(level);
        }
        let Some(Child { tally, mut node, .. }) = level.pop() else { return Self::default() };
        while let Some(only) = node.only() {
            node = only;
        }
        Self { root: node, tally }
    }

    /// The sums over all members.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many members are handed out.
    pub(crate) fn available(&self) -> u32 {
        match &self.root {
            Node::Leaf(leaf) => leaf.available(),
            Node::Branch(_) => self.tally.available(),
        }
    }

    /// Whether all that are handed out weigh the same.
    pub(crate) fn is_even(&self) -> bool {
        match &self.root {
            Node::Leaf(leaf) => leaf.is_even(),
            Node::Branch(_) => self.tally.is_even(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.root, Node::Leaf(leaf) if leaf.members.is_empty())
    }

    pub(crate) fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.get(key),
                Node::Branch(children) => node = &children.get(above(children, key))?.node,
            }
        }
    }

    /// One of those handed out, counted from 0 in their order.
    pub(crate) fn nth(&self, mut place: u32) -> Option<&T> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.nth(place),
                Node::Branch(children) => {
                    let mut children = children.iter();
                    node = loop {
                        let child = children.next()?;
                        let available = child.tally.available();
                        if place < available {
                            break &child.node;
                        }
                        place -= available;
                    };
                }
            }
        }
    }

    /// The one of those handed out at whom the sum of the weights passes `point`.
    pub(crate) fn at(&self, mut point: u64) -> Option<&T> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.at(point),
                Node::Branch(children) => {
                    let mut children = children.iter();
                    node = loop {
                        let child = children.next()?;
                        let weights = child.tally.weights();
                        if point < weights {
                            break &child.node;
                        }
                        point -= weights;
                    };
                }
            }
        }
    }

    /// All members, in order.
    pub(crate) fn iter(&self) -> Members<'_, T> {
        Members::all(&self.root)
    }

    /// The members from `key` on.
    pub(crate) fn from(&self, key: &T::Key) -> Members<'_, T> {
        Members::starting(&self.root, |member| member < key, key)
    }

    /// The members after `key`.
    pub(crate) fn beyond(&self, key: &T::Key) -> Members<'_, T> {
        Members::starting(&self.root, |member| member <= key, key)
    }
}

impl<T: Member> Default for Roster<T> {
    fn default() -> Self {
        Self { root: Node::Leaf(Leaf::default()), tally: Tally::default() }
    }
}

impl<T: Member> FromIterator<T> for Roster<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        let puts = members.into_iter().map(|member| Put { key: member.key().clone(), member: Some(member) });
        let mut puts = puts.collect();
        in_order(&mut puts);
        Self::default().after(&puts)
    }
}

impl<T: Member> fmt::Debug for Roster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("tally", &self.tally).finish_non_exhaustive()
    }
}

// === impl Node ===

impl<T: Member> Node<T> {
    /// What stands in this node's place after `puts`: nodes of the same height, none when no member is left.
    fn after(&self, tally: &Tally, puts: &[Put<T>]) -> Vec<Child<T>> {
        match self {
            Self::Leaf(leaf) => leaf.after(tally, puts),
            Self::Branch(children) => branch::after(children, puts),
        }
    }

    /// The only node below this one.
    fn only(&self) -> Option<Self> {
        match self {
            Self::Branch(children) => match &**children {
                [only] => Some(only.node.clone()),
                _ => None,
            },
            Self::Leaf(_) => None,
        }
    }

    /// Whether it should be joined with its neighbour.
    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.members.len() < leaf::MOST / 4,
            Self::Branch(children) => children.len() < branch::MOST / 4,
        }
    }
}

impl<T: Member> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Self::Branch(children) => Self::Branch(Arc::clone(children)),
        }
    }
}
