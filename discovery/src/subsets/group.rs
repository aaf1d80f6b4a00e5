//! Clients that share the instances of one query.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use roundsman_protocol::{DiscoveryError, Instance, InstanceId};
use roundsman_registry::{Moved, Registry, Subsets};
use tokio::{sync::watch, time::Instant};

use super::{Groups, Key, Limits, lock, reached};
use crate::memory::Reservation;

/// So many changes are noted down one by one. When there are more, everything is compared.
const NOTES: usize = 65_536;
/// How many pairs of a client and an instance move under one lock, about.
const PAIRS: usize = 16_384;
/// So many are moved in a moment.
const LIGHT: usize = 1_024;
/// What a client takes besides what [`Subsets`] counts.
const BELL: usize = 256;

/// Clients that share the instances of one query.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    state: Mutex<State>,
    /// What changed and is not in the subsets yet. Locked after the table and after the state, for a moment.
    notes: Mutex<Notes>,
    /// Whether the table has it among those with notes.
    noted: AtomicBool,
    filled: AtomicBool,
    limits: Limits,
    /// How many clients all groups of the namespace have.
    all_clients: Arc<AtomicUsize>,
}

/// Locked for as long as shares change. Neither the writer nor anybody who looks up locks it.
#[derive(Debug)]
struct State {
    subsets: Subsets,
    /// What wakes the watches of a client that is there.
    bells: HashMap<Arc<str>, Bell>,
    reservation: Option<Reservation>,
    /// How many clients are counted among those of the namespace.
    counted: usize,
    /// Nobody was left, and it is out of the table.
    closed: bool,
}

#[derive(Debug)]
struct Bell {
    watches: usize,
    sender: watch::Sender<()>,
}

/// Which instances are to be looked at.
#[derive(Debug)]
enum Notes {
    /// In order, so that the same changes lead to the same shares.
    Some(BTreeSet<InstanceId>),
    All,
}

/// How a group stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) clients: usize,
    /// The smallest and the largest number of clients that an instance has.
    pub(super) least: u32,
    pub(super) most: u32,
}

// === impl Group ===

impl Group {
    /// One without instances: whoever joins first fills it.
    pub(super) fn new(key: Key, limits: Limits, seed: u64, all_clients: Arc<AtomicUsize>, settled: Instant) -> Self {
        let subsets = Subsets::new(key.size, limits.clients, seed, settled);
        let state = State { subsets, bells: HashMap::new(), reservation: None, counted: 0, closed: false };
        Self {
            key,
            state: Mutex::new(state),
            // What changes from now on is among all.
            notes: Mutex::new(Notes::All),
            noted: AtomicBool::new(false),
            filled: AtomicBool::new(false),
            limits,
            all_clients,
        }
    }

    /// Whether it was ever up to date.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Notes down an instance that the query matches, or matched. Returns whether it does.
    pub(super) fn note(&self, instance: &Instance) -> bool {
        let concerns = self.key.query.describes(instance);
        if concerns {
            lock(&self.notes).add(&instance.id);
        }
        concerns
    }

    /// Says whether the table has it among those with notes. Returns whether that is new.
    pub(super) fn mark_noted(&self, noted: bool) -> bool {
        self.noted.swap(noted, Ordering::AcqRel) != noted
    }

    /// Gives a client its share, and what will wake it. `None` when the group was given up.
    pub(super) fn join(
        &self,
        groups: &Groups,
        client: &Arc<str>,
        wanted: &[InstanceId],
        now: Instant,
    ) -> Result<Option<watch::Receiver<()>>, DiscoveryError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(None);
        }
        let _ = self.catch_up(&mut state, groups, now);
        let joined = self.admit(&mut state, groups, client, wanted, now);
        self.conclude(&mut state, groups);
        joined.map(Some)
    }

    /// Ends one join. Once the last one of a client ended, its share is kept until `until`.
    pub(super) fn leave(&self, client: &Arc<str>, until: Instant) {
        let mut state = lock(&self.state);
        state.subsets.leave(client, until);
        if let Some(bell) = state.bells.get_mut(client) {
            bell.watches -= 1;
            if bell.watches == 0 {
                state.bells.remove(client);
            }
        }
    }

    /// What a client has.
    pub(super) fn share(&self, groups: &Groups, client: &str, now: Instant) -> Vec<InstanceId> {
        let mut state = lock(&self.state);
        let _ = self.catch_up(&mut state, groups, now);
        self.conclude(&mut state, groups);
        state.subsets.of(client).into_iter().flatten().cloned().collect()
    }

    /// Whether bringing it up to date takes a moment. Otherwise it is to be done where nobody else waits for it.
    pub(super) fn is_light(&self) -> bool {
        if !self.is_filled() {
            return true;
        }
        let Ok(state) = self.state.try_lock() else { return false };
        let (_, most) = state.subsets.spread().unwrap_or_default();
        let noted = lock(&self.notes).len();
        noted.saturating_mul(usize::try_from(most).unwrap_or(usize::MAX)) <= LIGHT
    }

    /// Brings it up to date, and gives it up if nobody is left.
    pub(super) fn tend(&self, groups: &Groups, now: Instant) {
        loop {
            let mut state = lock(&self.state);
            // One that nobody joined yet is filled by whoever will, where nobody else waits for it.
            if state.closed || !self.is_filled() {
                return;
            }
            let more = self.catch_up(&mut state, groups, now);
            self.conclude(&mut state, groups);
            drop(state);
            if !more {
                return;
            }
            // Those who came for their share in the meantime are first.
            std::thread::yield_now();
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let state = lock(&self.state);
        let (least, most) = state.subsets.spread().unwrap_or_default();
        Standing { clients: state.subsets.len(), least, most }
    }

    /// As when more changed than is noted down.
    #[cfg(test)]
    pub(super) fn overflow(&self) {
        *lock(&self.notes) = Notes::All;
    }

    fn admit(
        &self,
        state: &mut State,
        groups: &Groups,
        client: &Arc<str>,
        wanted: &[InstanceId],
        now: Instant,
    ) -> Result<watch::Receiver<()>, DiscoveryError> {
        if state.subsets.of(client).is_none() {
            let most = self.limits.clients_of_a_namespace;
            if self.all_clients.load(Ordering::Relaxed) >= most {
                return Err(reached("on clients that have a subset in a namespace", most));
            }
            let more = state.subsets.bytes_of_a_client() + BELL;
            let bytes = state.bytes() + more;
            let taken = state.reservation.as_ref().map_or(0, Reservation::bytes);
            let extra = groups.budget.reserve(&self.key.namespace, bytes.saturating_sub(taken))?;
            match &mut state.reservation {
                None => state.reservation = Some(extra),
                Some(reservation) => {
                    drop(extra);
                    reservation.settle(bytes);
                }
            }
        }
        let moved = state.subsets.join(client, wanted, now);
        let moved = moved.map_err(|full| reached("on clients that share a subset query", full.limit))?;
        state.ring(&moved);
        let others = moved.iter().filter(|moved| moved.client != *client);
        groups.meters.moved(others);
        let bell = state.bells.entry(Arc::clone(client)).or_insert_with(Bell::new);
        bell.watches += 1;
        Ok(bell.sender.subscribe())
    }

    /// Takes in what was noted down, and what time brought. Not more than moves a bounded number of pairs, since others wait
    /// for the lock: says whether notes are left. Whoever has an instance of these is told once they are taken in.
    fn catch_up(&self, state: &mut State, groups: &Groups, now: Instant) -> bool {
        // In this order: what changes after the notes were taken is noted down again.
        let (notes, more) = lock(&self.notes).take(state.at_a_time());
        let moved = match notes {
            Notes::Some(ids) if ids.is_empty() => Vec::new(),
            Notes::Some(ids) => self.take_in(state, &groups.registry, ids, now),
            Notes::All => self.compare(state, &groups.registry, now),
        };
        state.ring(&moved);
        groups.meters.moved(&moved);
        if state.subsets.due().is_some_and(|due| due <= now) {
            let moved = state.subsets.expire(now);
            state.ring(&moved);
            groups.meters.moved(&moved);
        }
        self.filled.store(true, Ordering::Release);
        more
    }

    fn take_in(&self, state: &mut State, registry: &Registry, ids: BTreeSet<InstanceId>, now: Instant) -> Vec<Moved> {
        let Key { namespace, query, .. } = &self.key;
        let snapshot = registry.snapshot(namespace, query);
        let (there, gone): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| snapshot.one(query, id).is_some());
        for client in there.iter().flat_map(|id| state.subsets.holders(id)) {
            state.bells.get(client).into_iter().for_each(Bell::ring);
        }
        state.subsets.update(&there, &gone, now)
    }

    fn compare(&self, state: &mut State, registry: &Registry, now: Instant) -> Vec<Moved> {
        let Key { namespace, query, .. } = &self.key;
        let snapshot = registry.snapshot(namespace, query);
        let there: Vec<InstanceId> = snapshot.matching(query).map(|instance| instance.id.clone()).collect();
        let known: HashSet<&InstanceId> = there.iter().collect();
        let gone: Vec<_> = state.subsets.instances().filter(|id| !known.contains(id)).cloned().collect();
        state.bells.values().for_each(Bell::ring);
        state.subsets.update(&there, &gone, now)
    }

    /// Keeps the counts, and gives the group up if nobody is left.
    fn conclude(&self, state: &mut State, groups: &Groups) {
        let (clients, bytes) = (state.subsets.len(), state.bytes());
        self.all_clients.fetch_add(clients, Ordering::Relaxed);
        self.all_clients.fetch_sub(mem::replace(&mut state.counted, clients), Ordering::Relaxed);
        if let Some(reservation) = state.reservation.as_mut().filter(|reservation| reservation.bytes() != bytes) {
            reservation.settle(bytes);
        }
        if clients == 0 {
            state.closed = true;
            state.reservation = None;
            groups.table().remove(self);
        }
    }
}

// === impl State ===

impl State {
    fn bytes(&self) -> usize {
        self.subsets.bytes() + self.subsets.len() * BELL
    }

    /// How many instances may come and go under one lock: so many that no more than [`PAIRS`] have to move, about.
    fn at_a_time(&self) -> usize {
        let (_, most) = self.subsets.spread().unwrap_or_default();
        (PAIRS / usize::try_from(most).unwrap_or(usize::MAX).max(1)).max(1)
    }

    fn ring(&self, moved: &[Moved]) {
        for Moved { client, .. } in moved {
            self.bells.get(client).into_iter().for_each(Bell::ring);
        }
    }
}

// === impl Bell ===

impl Bell {
    fn new() -> Self {
        Self { watches: 0, sender: watch::Sender::new(()) }
    }

    fn ring(&self) {
        self.sender.send_replace(());
    }
}

// === impl Notes ===

impl Notes {
    fn add(&mut self, id: &InstanceId) {
        let Self::Some(ids) = self else { return };
        if ids.len() >= NOTES {
            *self = Self::All;
        } else {
            ids.insert(id.clone());
        }
    }
}

impl Notes {
    fn len(&self) -> usize {
        match self {
            Self::Some(ids) => ids.len(),
            Self::All => usize::MAX,
        }
    }

    /// Takes out the first so many, and says whether any are left.
    fn take(&mut self, most: usize) -> (Self, bool) {
        let Self::Some(ids) = self else { return (mem::take(self), false) };
        let rest = ids.iter().nth(most).cloned().map(|first| ids.split_off(&first)).unwrap_or_default();
        let more = !rest.is_empty();
        (Self::Some(mem::replace(ids, rest)), more)
    }
}

impl Default for Notes {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}
