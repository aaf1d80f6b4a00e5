//! Visits that wait for an answer: as many as there may be sockets for it, and no more.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::shares::{Owner, Shares};

/// The visits that wait for somebody who hangs.
#[derive(Debug)]
pub(crate) struct Waits {
    most: usize,
    /// Dropped, a sender ends the visit.
    waiting: Mutex<Shares<oneshot::Sender<()>>>,
}

/// A visit that waits; it no longer counts when dropped.
#[derive(Debug)]
struct Wait<'a> {
    waits: &'a Waits,
    owner: &'a Owner,
    number: u64,
    cut: oneshot::Receiver<()>,
}

// === impl Waits ===

impl Waits {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), waiting: Mutex::default() }
    }

    /// Takes in a visit that goes on to wait. Where that is one too many, the one that has waited longest gives way: of the
    /// namespace that has most of them, and in it of the service that has.
    fn enter<'a>(&'a self, owner: &'a Owner) -> Wait<'a> {
        let (sender, cut) = oneshot::channel();
        let (number, given_up) = {
            let mut waiting = self.waiting();
            let number = waiting.insert(owner, sender);
            (number, if waiting.len() > self.most { waiting.take_of_most() } else { None })
        };
        drop(given_up);
        Wait { waits: self, owner, number, cut }
    }

    /// Waits for the end of a visit; `None` when it has to give way to another one.
    pub(crate) async fn outlast<T>(&self, visiting: Pin<&mut impl Future<Output = T>>, owner: &Owner) -> Option<T> {
        let mut wait = self.enter(owner);
        tokio::select! {
            biased;
            end = visiting => Some(end),
            () = wait.cut() => None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Shares<oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Wait ===

impl Wait<'_> {
    /// Ends when this visit has to give way. Cancel safe.
    async fn cut(&mut self) {
        let _ = (&mut self.cut).await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let sender = self.waits.waiting().remove(self.owner, self.number);
        drop(sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::tests::owner;

    #[tokio::test]
    async fn the_longest_wait_of_who_has_the_most_gives_way() {
        let waits = Waits::new(3);
        let (big, small) = (owner("big", "order"), owner("small", "order"));
        let mut only = waits.enter(&small);
        let (mut first, mut second) = (waits.enter(&big), waits.enter(&big));
        let third = waits.enter(&big);
        first.cut().await;
        assert!(second.cut.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert!(only.cut.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop((first, third));
        assert_eq!(waits.waiting().len(), 2);
        let _fourth = waits.enter(&small);
        assert!(second.cut.try_recv() == Err(oneshot::error::TryRecvError::Empty), "there is room again");
    }
}
