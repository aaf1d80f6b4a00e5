//! The brake: holds evictions for silence back when so many instances fall silent that the fault is probably ours.
//!
//! Pure. It knows counts, not instances: each visitor says what its own instance does. Where the counts do not tell yet
//! whether the fault is ours, it asks for a few other instances to be visited at once.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Fewer silent instances than this prove nothing about us.
const FEWEST: u32 = 5;
/// So many more must have answered than fell silent, before the fault is taken to be the instance's own: when more than half
/// of all are cut off, it is unlikely that one of the few that are asked first is not.
const MARGIN: u32 = 2;
/// Pieces into which an interval is cut; older pieces are forgotten one by one.
const PIECES: u32 = 20;

/// Counts who fell silent and who answered, and decides whether evictions for silence wait.
#[derive(Debug)]
pub(crate) struct Brake {
    interval: Duration,
    limit: Duration,
    /// Least time between two samples: by then the last one has been answered, or not.
    pause: Duration,
    /// Instances that are handed out and visited.
    visited: u32,
    /// Of these: not heard of yet, well or badly, since this server started.
    unheard: u32,
    /// Of these: silent at their last visit.
    silent: u32,
    /// Of these: kept from being evicted.
    held: u32,
    /// Who fell silent within the last interval, oldest first.
    pieces: VecDeque<Piece>,
    /// Answered visits of instances that are handed out. Wraps: only differences count.
    answered: u32,
    /// Instances that fell silent while they were handed out. Wraps, too.
    fallen: u32,
    /// When others were asked last.
    sampled: Option<Instant>,
    /// When it last went off because the share fell.
    let_go: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: Instant,
    fell: u32,
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
    /// No visit of it has ended yet.
    pub(crate) unheard: bool,
    /// When it fell silent, if it is.
    pub(crate) silent: Option<Fall>,
    /// An eviction of it is held back.
    pub(crate) held: bool,
}

/// The moment at which an instance fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fall {
    at: Instant,
    /// How many visits had been answered until then.
    answered: u32,
    /// How many had fallen until then, those not counted that were silent at that moment: whoever came back or was evicted
    /// before is a matter that is settled.
    fallen: u32,
}

/// What is to be done about a silent instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// It may not be evicted for its silence now.
    pub(crate) holds: bool,
    /// Others should be visited at once, so that it is known sooner whose fault it is.
    pub(crate) ask: bool,
    pub(crate) turn: Option<Turn>,
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
    /// `timeout`: how long a visit may take.
    pub(crate) fn new(interval: Duration, timeout: Duration, limit: Duration) -> Self {
        Self {
            interval: interval.max(Duration::from_millis(1)),
            limit,
            pause: timeout,
            visited: 0,
            unheard: 0,
            silent: 0,
            held: 0,
            pieces: VecDeque::new(),
            answered: 0,
            fallen: 0,
            sampled: None,
            let_go: None,
            state: State::Off,
        }
    }

    /// An instance falls silent now.
    pub(crate) fn fall(&self, now: Instant) -> Fall {
        Fall { at: now, answered: self.answered, fallen: self.fallen.wrapping_sub(self.silent) }
    }

    /// An instance now counts for `to` instead of `from`.
    pub(crate) fn moved(&mut self, from: Standing, to: Standing, now: Instant) -> Option<Turn> {
        shift(&mut self.visited, from.visited, to.visited);
        shift(&mut self.unheard, from.visited && from.unheard, to.visited && to.unheard);
        shift(&mut self.silent, from.visited && from.silent.is_some(), to.visited && to.silent.is_some());
        shift(&mut self.held, from.held, to.held);
        if to.visited && to.silent.is_some() && from.silent.is_none() {
            self.fell_silent(now);
        }
        self.assess(now)
    }

    /// A visit of an instance that is handed out was answered, well or badly.
    pub(crate) fn answered(&mut self) {
        self.answered = self.answered.wrapping_add(1);
    }

    /// What to do about an instance that is silent since `fall`.
    ///
    /// It may not be evicted while the brake is on, nor before it is known whether the brake must go on: rounds take an
    /// interval, and the instance that is visited first in a blackout would otherwise be evicted long before half of the
    /// others were missed. It is known as soon as clearly more answered than fell silent, and after an interval in which at
    /// least one answered: where nobody did, those who are still being waited for may be cut off as well. A few others
    /// are visited at once, so that this is soon, however long the interval; never more at a time, so that a blackout
    /// makes no burst of visits.
    pub(crate) fn judge(&mut self, fall: Fall, now: Instant) -> Verdict {
        let turn = self.assess(now);
        let doubts = self.state == State::Off && self.doubts(fall, now);
        let holds = doubts || matches!(self.state, State::On(_)) || self.just_let_go(now);
        let ask = doubts && self.sampled.is_none_or(|at| now.saturating_duration_since(at) >= self.pause);
        if ask {
            self.sampled = Some(now);
        }
        Verdict { holds, ask, turn }
    }

    /// Whether a visit that ends in silence now may have begun while the brake was on. One that is later by more than a quarter
    /// of its time counts for nothing anyway.
    fn just_let_go(&self, now: Instant) -> bool {
        self.let_go.is_some_and(|at| now.saturating_duration_since(at) <= self.pause.saturating_add(self.pause / 4))
    }

    fn doubts(&self, fall: Fall, now: Instant) -> bool {
        let few = self.visited < FEWEST;
        let answered = self.answered.wrapping_sub(fall.answered);
        let patience = if answered == 0 { self.limit.max(self.interval) } else { self.interval };
        let long = now.saturating_duration_since(fall.at) >= patience;
        let silent = self.fallen.wrapping_sub(fall.fallen);
        !few && !long && answered < silent + MARGIN
    }

    /// Looks at the clock and the counts.
    pub(crate) fn assess(&mut self, now: Instant) -> Option<Turn> {
        self.forget(now);
        let heard = self.visited.saturating_sub(self.unheard);
        let most = |count: u32| count >= FEWEST && u64::from(count) * 2 > u64::from(heard);
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
        if turn == Turn::Off {
            self.let_go = Some(now);
        }
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

    fn fell_silent(&mut self, now: Instant) {
        self.fallen = self.fallen.wrapping_add(1);
        self.forget(now);
        let width = self.interval / PIECES;
        match self.pieces.back_mut() {
            Some(piece) if now.saturating_duration_since(piece.start) < width => piece.fell += 1,
            _ => self.pieces.push_back(Piece { start: now, fell: 1 }),
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
