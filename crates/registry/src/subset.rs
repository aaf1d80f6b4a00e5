//! Who gets which part of a service that is too large for everybody to know all of it.
//!
//! Each client gets `size` instances. How many clients an instance has is its load. The rules, in
//! this order:
//! 1. A client has `size` different instances, or all when there are fewer.
//! 2. Loads are even: each is the mean rounded up or down, or within 5 % of it ([`loads::Band`]).
//! 3. Of all ways to get there, one that moves few: at most twice as many as rules 1 and 2 force.
//! 4. The same calls lead to the same subsets: ties are broken by hashes of clients and instances.
//!
//! There is no clock in here and no lock: time is a parameter, and the caller has it to itself.
//! Weights play no part: a client picks by weight from its subset, and as each instance is in as many
//! subsets as any other, it still gets its share.

mod balance;
mod loads;
mod moves;
mod numbered;
mod pairs;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc};

use roundsman_protocol::InstanceId;
use tokio::time::Instant;

pub use self::moves::Moved;
use self::pairs::{Lease, Pairs};

/// The subsets of one size that clients have of the instances that one query matches.
#[derive(Debug)]
pub struct Subsets {
    pairs: Pairs,
    /// How many clients may have one at a time, those that are gone but kept included.
    limit: usize,
    /// The clients that are gone, by when they are forgotten.
    gone: BTreeSet<(Instant, u32)>,
    /// Until then clients bring back what they had, and loads may be uneven.
    settled: Instant,
    /// Whether one did, so that loads have to be evened out when that time is over.
    uneven: bool,
}

/// There are as many clients as there may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{limit} clients have a subset of this service and no more may: ask without a subset, or use fewer client names"
)]
pub struct Full {
    /// How many there are.
    pub limit: usize,
}

// === impl Subsets ===

impl Subsets {
    /// Subsets of `size` instances each, for at most `limit` clients at a time.
    ///
    /// Clients that join before `settled` get back what they had elsewhere, whatever the loads:
    /// most others are still on their way, and with them the loads are even again. What is not even
    /// then is evened out by the first [`Subsets::expire`] at or after that time. Servers with
    /// different seeds break ties differently, so that each of them favours other instances.
    #[must_use]
    pub fn new(size: NonZeroU32, limit: usize, seed: u64, settled: Instant) -> Self {
        Self { pairs: Pairs::new(size, seed), limit, gone: BTreeSet::new(), settled, uneven: false }
    }

    /// Gives a client its subset; one that has it already keeps it, and is kept until each join has
    /// had its [`Subsets::leave`].
    ///
    /// `wanted` is what a client that is new here had before, on this server or another; it gets of
    /// these what exists and balance allows.
    ///
    /// # Errors
    /// When there are too many clients. Of those that are gone, the first to be forgotten makes
    /// room.
    pub fn join(&mut self, client: &str, wanted: &[InstanceId], now: Instant) -> Result<Vec<Moved>, Full> {
        if let Some((number, lease)) = self.pairs.lease(client) {
            let watches = match *lease {
                Lease::Held(watches) => watches.saturating_add(1),
                Lease::Gone(until) => {
                    self.gone.remove(&(until, number));
                    1
                }
            };
            *lease = Lease::Held(watches);
            return Ok(Vec::new());
        }
        self.make_room()?;
        let number = self.pairs.add_client(client).ok_or(Full { limit: self.limit })?;
        let settling = now < self.settled;
        self.uneven |= settling && !wanted.is_empty();
        self.pairs.take_over(number, wanted, settling);
        self.pairs.fill(number);
        Ok(self.even_out(now))
    }

    /// Ends one join. When it was the client's last, the client keeps its subset until `until`, in
    /// case it comes back: then nothing has moved. Sets change by the first [`Subsets::expire`] at
    /// or after that time.
    pub fn leave(&mut self, client: &str, until: Instant) {
        let Some((number, lease)) = self.pairs.lease(client) else { return };
        match *lease {
            Lease::Held(watches) if watches > 1 => *lease = Lease::Held(watches - 1),
            Lease::Held(_) => {
                *lease = Lease::Gone(until);
                self.gone.insert((until, number));
            }
            Lease::Gone(_) => {}
        }
    }

    /// Forgets the clients whose time is over, and evens out what they and the settling left.
    pub fn expire(&mut self, now: Instant) -> Vec<Moved> {
        while let Some(&(until, number)) = self.gone.first()
            && until <= now
        {
            self.gone.pop_first();
            self.pairs.remove_client(number);
        }
        self.even_out(now)
    }

    /// When there is something to [`Subsets::expire`] next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let settled = self.uneven.then_some(self.settled);
        let gone = self.gone.first().map(|(until, _)| *until);
        settled.into_iter().chain(gone).min()
    }

    /// Takes instances in and out. One that is named on both sides is in, and moves nothing if it
    /// was in before.
    pub fn update(&mut self, added: &[InstanceId], removed: &[InstanceId], now: Instant) -> Vec<Moved> {
        let stay: BTreeSet<_> = added.iter().collect();
        let before = self.pairs.wanted();
        let mut short = BTreeSet::new();
        for id in removed.iter().filter(|id| !stay.contains(id)) {
            self.pairs.remove_instance(id, &mut short);
        }
        for id in added {
            self.pairs.add_instance(id);
        }
        if self.pairs.wanted() > before {
            short = self.pairs.by_point();
        }
        for (_, client) in short {
            self.pairs.fill(client);
        }
        self.even_out(now)
    }

    /// The subset of a client that has one, in no particular order.
    pub fn of(&self, client: &str) -> Option<impl Iterator<Item = &InstanceId>> {
        self.pairs.of(client)
    }

    /// The clients that are there and have an instance, and so must hear of it when it changes.
    pub fn holders(&self, instance: &InstanceId) -> impl Iterator<Item = &Arc<str>> {
        self.pairs.holders(instance)
    }

    /// The instances that subsets are made of, in no particular order.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.pairs.instances.iter().map(|(_, member)| &member.id)
    }

    /// How many clients there are, those that are gone but kept included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.clients()
    }

    /// Whether nobody has a subset, so that this need not be kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The smallest and the largest load; `None` without instances.
    #[must_use]
    pub fn spread(&self) -> Option<(u32, u32)> {
        self.pairs.spread()
    }

    /// How many bytes this takes in memory, about, the texts of the ids not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.pairs.bytes()
    }

    /// How many bytes one more client would take.
    #[must_use]
    pub fn bytes_of_a_client(&self) -> usize {
        self.pairs.bytes_of_a_client()
    }

    fn make_room(&mut self) -> Result<(), Full> {
        if self.pairs.clients() < self.limit {
            return Ok(());
        }
        let (_, number) = self.gone.pop_first().ok_or(Full { limit: self.limit })?;
        self.pairs.remove_client(number);
        Ok(())
    }

    fn even_out(&mut self, now: Instant) -> Vec<Moved> {
        self.uneven &= now < self.settled;
        if !self.uneven {
            self.pairs.even_out();
        }
        self.pairs.moved()
    }
}
