//! The brake: holds evictions for silence back when so many instances fall silent that the fault is probably ours.
//!
//! Pure. It knows counts, not instances: each visitor says what its own instance does.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Fewer silent instances than this prove nothing about us.
const FEWEST: u32 = 5;
/// Pieces into which an interval is cut; older pieces are forgotten one by one.
const PIECES: u32 = 20;

/// Counts who fell silent and who answered, and decides whether evictions for silence wait.
#[derive(Debug)]
pub(crate) struct Brake {
    interval: Duration,
    limit: Duration,
    /// Instances that are handed out and visited.
    visited: u32,
    /// Of these: silent at their last visit.
    silent: u32,
    /// Of these: kept from being evicted.
    held: u32,
    /// What happened within the last interval, oldest first.
    pieces: VecDeque<Piece>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: Instant,
    fell: u32,
    answered: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    On(Instant),
    /// Held for as long as it may. Off, but not on again before the share fell.
    Spent,
}

/// What one instance counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It is handed out.
    pub(crate) visited: bool,
    /// Since when it is silent.
    pub(crate) silent: Option<Instant>,
    /// An eviction of it is held back.
    pub(crate) held: bool,
}

/// The brake went on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    On,
    Off,
    /// Off, because it was on for as long as it may.
    Spent,
}

/// The counts of the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) on_since: Option<Instant>,
    pub(crate) silent: u32,
    pub(crate) visited: u32,
    pub(crate) held: u32,
}

// === impl Brake ===

impl Brake {
    pub(crate) fn new(interval: Duration, limit: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let (visited, silent, held) = (0, 0, 0);
        Self { interval, limit, visited, silent, held, pieces: VecDeque::new(), state: State::Off }
    }

    /// An instance now counts for `to` instead of `from`.
    pub(crate) fn moved(&mut self, from: Standing, to: Standing, now: Instant) -> Option<Turn> {
        shift(&mut self.visited, from.visited, to.visited);
        shift(&mut self.silent, from.visited && from.silent.is_some(), to.visited && to.silent.is_some());
        shift(&mut self.held, from.held, to.held);
        if to.visited && to.silent.is_some() && from.silent.is_none() {
            self.count(1, 0, now);
        }
        self.assess(now)
    }

    /// A visit of an instance that is handed out was answered, well or badly.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.count(0, 1, now);
    }

    /// Whether an instance that is silent since `since` may not be evicted for it now.
    ///
    /// It may not while the brake is on, nor before it is known whether the brake must go on: rounds take an
    /// interval, and the instance that is visited first in a blackout would otherwise be evicted long before half
    /// of the others were missed. It is known as soon as more others answered than fell silent, and after an interval.
    pub(crate) fn holds(&mut self, since: Instant, now: Instant) -> (bool, Option<Turn>) {
        let turn = self.assess(now);
        let holds = match self.state {
            State::On(_) => true,
            State::Spent => false,
            State::Off if self.visited < FEWEST || now.saturating_duration_since(since) >= self.interval => false,
            State::Off => {
                let answered: u32 = self.pieces.iter().filter(|p| p.start >= since).map(|p| p.answered).sum();
                answered < self.fell()
            }
        };
        (holds, turn)
    }

    /// Looks at the clock and the counts.
    pub(crate) fn assess(&mut self, now: Instant) -> Option<Turn> {
        self.forget(now);
        let most = |count: u32| count >= FEWEST && u64::from(count) * 2 > u64::from(self.visited);
        let (state, turn) = match self.state {
            State::Off if most(self.fell().min(self.silent)) => (State::On(now), Turn::On),
            State::On(_) if !most(self.silent) => (State::Off, Turn::Off),
            State::On(since) if now.saturating_duration_since(since) >= self.limit => (State::Spent, Turn::Spent),
            State::Spent if !most(self.silent) => {
                self.state = State::Off;
                return None;
            }
            State::Off | State::On(_) | State::Spent => return None,
        };
        self.state = state;
        Some(turn)
    }

    pub(crate) fn counts(&self) -> Counts {
        let on_since = match self.state {
            State::On(since) => Some(since),
            State::Off | State::Spent => None,
        };
        Counts { on_since, silent: self.silent, visited: self.visited, held: self.held }
    }

    fn fell(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.fell).sum()
    }

    fn forget(&mut self, now: Instant) {
        while self.pieces.front().is_some_and(|piece| now.saturating_duration_since(piece.start) > self.interval) {
            self.pieces.pop_front();
        }
    }

    fn count(&mut self, fell: u32, answered: u32, now: Instant) {
        self.forget(now);
        let width = self.interval / PIECES;
        match self.pieces.back_mut() {
            Some(piece) if now.saturating_duration_since(piece.start) < width => {
                piece.fell += fell;
                piece.answered += answered;
            }
            _ => self.pieces.push_back(Piece { start: now, fell, answered }),
        }
    }
}

fn shift(count: &mut u32, from: bool, to: bool) {
    match (from, to) {
        (false, true) => *count = count.saturating_add(1),
        (true, false) => *count = count.saturating_sub(1),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
