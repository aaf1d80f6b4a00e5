//! Walking over a roster in order.

use std::slice;

use super::{
    Member, Node,
    branch::{Child, above},
};

/// The members of a roster from some place on, in order.
pub(crate) struct Members<'a, T: Member> {
    above: Vec<slice::Iter<'a, Child<T>>>,
    here: slice::Iter<'a, T>,
}

impl<'a, T: Member> Members<'a, T> {
    pub(super) fn all(node: &'a Node<T>) -> Self {
        let mut members = Self { above: Vec::new(), here: [].iter() };
        members.enter(node);
        members
    }

    /// Those from the first on that is not `before` the place that is looked for, which is next to `key`.
    pub(super) fn starting(mut node: &'a Node<T>, before: impl Fn(&T::Key) -> bool, key: &T::Key) -> Self {
        let mut levels = Vec::new();
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let (_, here) = leaf.members.split_at(leaf.members.partition_point(|m| before(m.key())));
                    return Self { above: levels, here: here.iter() };
                }
                Node::Branch(children) => {
                    let mut children = children.iter();
                    let Some(child) = children.nth(above(children.as_slice(), key)) else {
                        return Self { above: levels, here: [].iter() };
                    };
                    levels.push(children);
                    node = &child.node;
                }
            }
        }
    }

    fn enter(&mut self, node: &'a Node<T>) {
        match node {
            Node::Leaf(leaf) => self.here = leaf.members.iter(),
            Node::Branch(children) => self.above.push(children.iter()),
        }
    }
}

impl<'a, T: Member> Iterator for Members<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(member) = self.here.next() {
                return Some(member);
            }
            match self.above.last_mut()?.next() {
                Some(child) => self.enter(&child.node),
                None => drop(self.above.pop()),
            }
        }
    }
}
