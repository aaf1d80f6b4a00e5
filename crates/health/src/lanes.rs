//! Whose turn it is to ask: permits for the first moments of visits, in two lanes.
//!
//! Whoever is well, refuses or resets does so within milliseconds. So a visit holds a permit for no longer than that, and gives
//! it back when it goes on to wait for somebody who hangs: permits bound the work at a time, not the patience. What cannot
//! wait has a lane of its own that the rounds cannot fill, and in each lane namespaces and services take turns.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::shares::{Owner, Shares};

/// A visit that is not over after this gives its permit back.
pub(crate) const ASKING: Duration = Duration::from_millis(25);

/// What is urgent comes first, but no more often than this in a row while the rounds wait: whoever registers or reports
/// without end must not stop them for everybody.
const URGENT_IN_A_ROW: u8 = 3;

/// How soon a visit must be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Something happened: a nudge, a closed connection, a new instance, a doubt.
    Urgent,
    /// A round came by.
    Routine,
}

/// The permits of all visitors, and who waits for one.
#[derive(Debug)]
pub(crate) struct Lanes(Mutex<Turns<oneshot::Sender<Permit>>>);

/// Leave to ask; passed on when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None`: it was given back already.
    lanes: Option<Arc<Lanes>>,
    lane: Lane,
}

/// A place in a queue; left when dropped.
struct Waiting<'a> {
    lanes: &'a Lanes,
    lane: Lane,
    owner: &'a Owner,
    number: u64,
}

/// Who holds permits and who waits for them. Pure.
#[derive(Debug)]
struct Turns<T> {
    free: usize,
    /// Of these: the most that routine visits may take now.
    free_for_routine: usize,
    urgent: Shares<T>,
    routine: Shares<T>,
    /// How often what is urgent was preferred since the rounds had their turn.
    preferred: u8,
}

// === impl Lanes ===

impl Lanes {
    /// With so many permits, at least one.
    pub(crate) fn new(permits: usize) -> Self {
        Self(Mutex::new(Turns::new(permits)))
    }

    /// Waits for its turn. Cancel safe: who does not wait any more leaves the queue, and a permit that it was just given is
    /// passed on. `None`: the rounds are over.
    pub(crate) async fn enter(self: &Arc<Self>, lane: Lane, owner: &Owner) -> Option<Permit> {
        if self.turns().take(lane) {
            return Some(self.permit(lane));
        }
        // Boxed, because queues are the exception, and every visitor has room for the larger way.
        Box::pin(self.queue(lane, owner)).await
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        let turns = self.turns();
        turns.urgent.len() + turns.routine.len()
    }

    async fn queue(self: &Arc<Self>, lane: Lane, owner: &Owner) -> Option<Permit> {
        let (sender, permit) = oneshot::channel();
        let number = {
            let mut turns = self.turns();
            if turns.take(lane) {
                drop(turns);
                return Some(self.permit(lane));
            }
            turns.lane(lane).insert(owner, sender)
        };
        let _waiting = Waiting { lanes: self, lane, owner, number };
        permit.await.ok()
    }

    fn permit(self: &Arc<Self>, lane: Lane) -> Permit {
        Permit { lanes: Some(Arc::clone(self)), lane }
    }

    /// Takes a permit back, and gives out what is free.
    fn take_back(self: &Arc<Self>, mut lane: Lane) {
        loop {
            let granted = {
                let mut turns = self.turns();
                turns.give_back(lane);
                turns.next()
            };
            let Some((next, waiter)) = granted else { return };
            let Err(mut unwanted) = waiter.send(self.permit(next)) else { return };
            unwanted.lanes = None;
            lane = next;
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Permit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            lanes.take_back(self.lane);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiter = self.lanes.turns().lane(self.lane).remove(self.owner, self.number);
        drop(waiter);
    }
}

// === impl Turns ===

impl<T> Turns<T> {
    fn new(permits: usize) -> Self {
        let free = permits.max(1);
        // A quarter is kept for what is urgent, where there is more than one.
        let free_for_routine = (free - free / 4).min(free.max(2) - 1);
        Self { free, free_for_routine, urgent: Shares::default(), routine: Shares::default(), preferred: 0 }
    }

    fn lane(&mut self, lane: Lane) -> &mut Shares<T> {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        }
    }

    /// Takes a permit, if one is free and nobody waits for it.
    fn take(&mut self, lane: Lane) -> bool {
        let first = self.lane(lane).is_empty() && self.has_room(lane);
        if first {
            self.hand_out(lane);
        }
        first
    }

    /// Takes a permit on behalf of whose turn it is.
    fn next(&mut self) -> Option<(Lane, T)> {
        let mut order = [Lane::Urgent, Lane::Routine];
        if self.preferred >= URGENT_IN_A_ROW {
            order.reverse();
        }
        let lane = order.into_iter().find(|lane| self.has_room(*lane) && !self.lane(*lane).is_empty())?;
        let waiter = self.lane(lane).take_next()?;
        let preferred = lane == Lane::Urgent && !self.routine.is_empty();
        self.preferred = if preferred { self.preferred.saturating_add(1) } else { 0 };
        self.hand_out(lane);
        Some((lane, waiter))
    }

    fn has_room(&self, lane: Lane) -> bool {
        self.free > 0 && (lane == Lane::Urgent || self.free_for_routine > 0)
    }

    fn hand_out(&mut self, lane: Lane) {
        self.free -= 1;
        self.free_for_routine -= usize::from(lane == Lane::Routine);
    }

    fn give_back(&mut self, lane: Lane) {
        self.free += 1;
        self.free_for_routine += usize::from(lane == Lane::Routine);
    }
}

#[cfg(test)]
mod tests;
