//! The branches of a roster.

use super::{Member, Node, Put, leaf::leaves};
use crate::tally::Tally;

/// The most children of a branch: a change copies one branch of each level.
pub(super) const MOST: usize = 8;

/// A node below a branch, and what is known of it without looking at it.
pub(super) struct Child<T: Member> {
    /// The first key below it.
    pub(super) first: T::Key,
    pub(super) tally: Tally,
    pub(super) node: Node<T>,
}

impl<T: Member> Child<T> {
    /// A node with these sums; `None` when there is nothing in it.
    pub(super) fn of(tally: Tally, node: Node<T>) -> Option<Self> {
        let first = match &node {
            Node::Leaf(leaf) => leaf.members.first()?.key().clone(),
            Node::Branch(children) => children.first()?.first.clone(),
        };
        Some(Self { first, tally, node })
    }
}

impl<T: Member> Clone for Child<T> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), tally: self.tally, node: self.node.clone() }
    }
}

/// The place of the child that has `key`, if any has.
pub(super) fn above<T: Member>(children: &[Child<T>], key: &T::Key) -> usize {
    children.partition_point(|child| child.first <= *key).saturating_sub(1)
}

/// What stands in a branch's place after `puts`.
pub(super) fn after<T: Member>(children: &[Child<T>], puts: &[Put<T>]) -> Vec<Child<T>> {
    let mut new = Vec::with_capacity(children.len() + 1);
    let (mut nexts, mut rest) = (children.iter().skip(1), puts);
    for child in children {
        let mine = nexts.next().map_or(rest.len(), |next| rest.partition_point(|put| put.key < next.first));
        let (mine, others) = rest.split_at(mine);
        if mine.is_empty() {
            new.push(child.clone());
        } else {
            new.extend(child.node.after(&child.tally, mine));
        }
        rest = others;
    }
    grouped(mended(new))
}

/// Branches of about the same size with these children; none when there is none.
pub(super) fn grouped<T: Member>(children: Vec<Child<T>>) -> Vec<Child<T>> {
    let count = children.len().div_ceil(MOST);
    let mut children = children.into_iter();
    let mut made = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let size = children.len() / left;
        made.extend(branch(children.by_ref().take(size).collect()));
    }
    made
}

fn branch<T: Member>(children: Vec<Child<T>>) -> Option<Child<T>> {
    let mut tally = Tally::default();
    children.iter().for_each(|child| tally.add(&child.tally));
    Child::of(tally, Node::Branch(children.into()))
}

/// Joins children that have become small with their neighbours.
fn mended<T: Member>(children: Vec<Child<T>>) -> Vec<Child<T>> {
    if !children.iter().any(|child| child.node.is_small()) {
        return children;
    }
    let mut mended: Vec<Child<T>> = Vec::with_capacity(children.len());
    for child in children {
        let small = child.node.is_small();
        match mended.pop() {
            Some(last) if small || last.node.is_small() => mended.extend(joined(last, child)),
            last => mended.extend(last.into_iter().chain([child])),
        }
    }
    mended
}

fn joined<T: Member>(one: Child<T>, next: Child<T>) -> Vec<Child<T>> {
    match (&one.node, &next.node) {
        (Node::Leaf(a), Node::Leaf(b)) => leaves(a.members.iter().chain(&*b.members).cloned().collect()),
        (Node::Branch(a), Node::Branch(b)) => grouped(mended(a.iter().chain(&**b).cloned().collect())),
        // Siblings are alike.
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => vec![one, next],
    }
}
