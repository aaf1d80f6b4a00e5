//! Who is connected to the HTTP door, and who gives way when it is full. No sockets.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How many guests there may be: connections beyond the limit, for whom nobody gave way.
pub(super) const RESERVE: usize = 64;
/// Whoever has read nothing of an answer for so long may have to give way.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// All connections of the door.
#[derive(Debug)]
pub(super) struct Crowd {
    limit: usize,
    open: Gauge,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    next: u64,
    callers: Table,
    guests: Table,
}

/// Connections, and in which order they give way.
#[derive(Debug, Default)]
struct Table {
    seats: HashMap<u64, (CancellationToken, Option<Idle>)>,
    waiting: BTreeSet<(Instant, u64)>,
    stalled: BTreeSet<(Instant, u64)>,
}

/// Why nothing happens on a connection, and since when.
#[derive(Clone, Copy, Debug)]
enum Idle {
    /// It waits for the head of a request.
    Waiting(Instant),
    /// It waits until the client reads.
    Stalled(Instant),
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    guest: bool,
    leave: CancellationToken,
    /// What the table says, so that it need not be asked at every turn.
    state: AtomicU8,
    serving: AtomicBool,
}

const WAITING: u8 = 0;
const STALLED: u8 = 1;
const BUSY: u8 = 2;

/// A request is being answered for as long as this lives.
#[derive(Debug)]
pub(super) struct Serving<'a>(&'a Seat);

// === impl Crowd ===

impl Crowd {
    pub(super) fn new(limit: usize, open: Gauge) -> Arc<Self> {
        Arc::new(Self { limit, open, tables: Mutex::default() })
    }

    /// A seat for a new connection. When all are taken, the connection on which nothing has
    /// happened for the longest time gives way; when something happens on all of them, the new one
    /// is a guest. `None` when there are too many guests.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Seat> {
        let now = Instant::now();
        let mut tables = self.lock();
        let guest = tables.callers.seats.len() >= self.limit && !tables.callers.make_room(now, STALLED_AFTER);
        if guest && tables.guests.seats.len() >= RESERVE && !tables.guests.make_room(now, Duration::ZERO) {
            return None;
        }
        tables.next += 1;
        let (number, leave) = (tables.next, CancellationToken::new());
        let table = tables.table(guest);
        table.seats.insert(number, (leave.clone(), None));
        table.set(number, Some(Idle::Waiting(now)));
        drop(tables);
        self.open.inc();
        let (state, serving) = (AtomicU8::new(WAITING), AtomicBool::new(false));
        Some(Seat { crowd: Arc::clone(self), number, guest, leave, state, serving })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Tables ===

impl Tables {
    fn table(&mut self, guest: bool) -> &mut Table {
        if guest { &mut self.guests } else { &mut self.callers }
    }
}

// === impl Table ===

impl Table {
    /// Lets the one go on whose connection nothing has happened for the longest time, if there is
    /// one.
    fn make_room(&mut self, now: Instant, stalled_after: Duration) -> bool {
        let stalled = self.stalled.first().filter(|(since, _)| now.duration_since(*since) >= stalled_after);
        let Some(&(_, number)) = self.waiting.first().into_iter().chain(stalled).min() else { return false };
        if let Some(leave) = self.remove(number) {
            leave.cancel();
        }
        true
    }

    fn set(&mut self, number: u64, idle: Option<Idle>) {
        // Whoever had to give way is no longer here.
        let Some((_, known)) = self.seats.get_mut(&number) else { return };
        match std::mem::replace(known, idle) {
            Some(Idle::Waiting(since)) => drop(self.waiting.remove(&(since, number))),
            Some(Idle::Stalled(since)) => drop(self.stalled.remove(&(since, number))),
            None => {}
        }
        match idle {
            Some(Idle::Waiting(since)) => drop(self.waiting.insert((since, number))),
            Some(Idle::Stalled(since)) => drop(self.stalled.insert((since, number))),
            None => {}
        }
    }

    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        self.set(number, None);
        self.seats.remove(&number).map(|(leave, _)| leave)
    }
}

// === impl Seat ===

impl Seat {
    /// Whether this is one of the reserve, where only what is essential is answered.
    pub(super) fn is_guest(&self) -> bool {
        self.guest
    }

    /// Resolves when the connection has to give way to another.
    pub(super) fn leave(&self) -> WaitForCancellationFuture<'_> {
        self.leave.cancelled()
    }

    /// A request is answered from now on.
    pub(super) fn serve(&self) -> Serving<'_> {
        self.serving.store(true, Ordering::Release);
        self.busy();
        Serving(self)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// The next head is waited for from now on.
    pub(super) fn wait(&self) {
        self.set(WAITING, || Some(Idle::Waiting(Instant::now())));
    }

    /// The client reads nothing from now on.
    pub(super) fn stall(&self) {
        self.set(STALLED, || Some(Idle::Stalled(Instant::now())));
    }

    /// Something happens.
    pub(super) fn busy(&self) {
        self.set(BUSY, || None);
    }

    fn set(&self, state: u8, idle: impl FnOnce() -> Option<Idle>) {
        if self.state.swap(state, Ordering::AcqRel) != state {
            self.crowd.lock().table(self.guest).set(self.number, idle());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.lock().table(self.guest).remove(self.number);
        self.crowd.open.dec();
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.serving.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
