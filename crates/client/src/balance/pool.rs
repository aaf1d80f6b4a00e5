//! The instances that a call may go to, prepared for fast choices.

use std::sync::Arc;

use roundsman_protocol::{Instance, InstanceId};
use tokio::time::Instant;

use super::{
    Nearness, Policy,
    eligible::{Eligible, eligible},
    member::Member,
    peer::Peers,
};
use crate::snapshot::Snapshot;

/// An instance is left for another one that costs so many times less: what is smaller is noise.
const WORSE: f32 = 2.0;

/// Those of a snapshot's instances that come into question. Immutable; what changes are the peers.
#[derive(Debug)]
pub(crate) struct Pool {
    snapshot: Arc<Snapshot>,
    /// The state of the circuits that it was made in.
    turns: usize,
    eligible: Eligible,
    /// The weights of each member and all before it; none when all are equal.
    weights: Option<Box<[u64]>>,
}

/// A member, and whether the call is the one that finds out whether it is back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) member: &'a Arc<Member>,
    pub(crate) trial: bool,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(snapshot: &Arc<Snapshot>, nearness: &Nearness, peers: &Peers) -> Self {
        // Read before the circuits: one that turns meanwhile makes this an old pool.
        let turns = peers.turns();
        let known = peers.of(snapshot.instances());
        let members = snapshot.instances().iter().zip(known).map(|(instance, peer)| {
            let hash = hash(instance.id.as_str().as_bytes());
            Arc::new(Member { instance: Arc::clone(instance), peer, hash })
        });
        let eligible = eligible(members.collect(), nearness, Instant::now());
        Self { snapshot: Arc::clone(snapshot), turns, weights: weights(&eligible.members), eligible }
    }

    /// Whether this is the pool of that snapshot, with the circuits as they are.
    pub(crate) fn is_current(&self, snapshot: &Arc<Snapshot>, peers: &Peers) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
            && self.turns == peers.turns()
            && self.eligible.due.is_none_or(|due| Instant::now() < due)
    }

    /// One of them. `turn` counts up from call to call.
    pub(crate) fn choose(&self, policy: Policy, turn: usize) -> Option<Choice<'_>> {
        self.trial(|_| true).or_else(|| self.by(policy, turn).map(Choice::plain))
    }

    /// Another one than these; with no other left, any.
    pub(crate) fn choose_except(&self, policy: Policy, turn: usize, tried: &[InstanceId]) -> Option<Choice<'_>> {
        let untried = |member: &Member| !tried.contains(&member.instance.id);
        if let Some(trial) = self.trial(untried) {
            return Some(trial);
        }
        let chosen = self.by(policy, turn)?;
        if untried(chosen) {
            return Some(Choice::plain(chosen));
        }
        let others = || self.eligible.members.iter().filter(|member| untried(member));
        let nth = turn.checked_rem(others().count()).unwrap_or_default();
        Some(Choice::plain(others().nth(nth).unwrap_or(chosen)))
    }

    /// The one for this key: the one whose hash together with the key's is the highest. An instance that goes
    /// leaves only its own keys to the others, one that comes takes its share from all.
    pub(crate) fn choose_for(&self, key: &[u8]) -> Option<Choice<'_>> {
        let key = hash(key);
        let rank = |member: &&Arc<Member>| mix(member.hash ^ key);
        let home = self.eligible.members.iter().max_by_key(rank);
        let ejected = self.eligible.half_open.iter().max_by_key(rank);
        // Its own keys find out whether an ejected instance is back.
        if let Some(ejected) = ejected.filter(|ejected| home.is_none_or(|home| rank(&home) < rank(ejected)))
            && ejected.peer.claim_trial()
        {
            return Some(Choice { member: ejected, trial: true });
        }
        home.map(Choice::plain)
    }

    /// This one, if it is near enough, also when it is passed over.
    #[cfg(feature = "http")]
    pub(crate) fn find(&self, id: &InstanceId) -> Option<Choice<'_>> {
        let all = self.eligible.members.iter().chain(&self.eligible.ejected);
        all.into_iter().find(|member| member.instance.id == *id).map(Choice::plain)
    }

    /// Those that calls go to as a rule.
    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.eligible.members
    }

    /// The instances that are passed over.
    pub(crate) fn ejected(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.eligible.ejected.iter().map(|member| &member.instance)
    }

    fn trial(&self, admitted: impl Fn(&Member) -> bool) -> Option<Choice<'_>> {
        let claimed = |member: &&Arc<Member>| admitted(member) && member.peer.claim_trial();
        self.eligible.half_open.iter().find(claimed).map(|member| Choice { member, trial: true })
    }

    fn by(&self, policy: Policy, turn: usize) -> Option<&Arc<Member>> {
        match policy {
            Policy::Weighted => self.weighted(turn),
            Policy::RoundRobin => self.in_turn(turn),
            Policy::Random => self.members().get(self.any()?),
            Policy::PeakEwma => self.lighter_of_two(),
        }
    }

    fn in_turn(&self, turn: usize) -> Option<&Arc<Member>> {
        self.members().get(turn.checked_rem(self.members().len())?)
    }

    fn weighted(&self, turn: usize) -> Option<&Arc<Member>> {
        let Some(weights) = &self.weights else { return self.in_turn(turn) };
        // Multiples of the golden ratio fill the range evenly: each gets its share, and no long run of calls.
        let spread = u64::try_from(turn).unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let total = weights.last().copied().unwrap_or_default();
        let at = u64::try_from((u128::from(spread) * u128::from(total)) >> 64).unwrap_or_default();
        self.members().get(weights.partition_point(|sum| *sum <= at))
    }

    fn lighter_of_two(&self) -> Option<&Arc<Member>> {
        let first = self.any()?;
        let count = self.members().len();
        if count == 1 {
            return self.members().get(first);
        }
        // Another one, and each of the others as likely.
        let second = (first + fastrand::usize(1..count)) % count;
        let (first, second) = (self.members().get(first)?, self.members().get(second)?);
        Some(if second.peer.load.cost(1.0) * WORSE < first.peer.load.cost(1.0) { second } else { first })
    }

    fn any(&self) -> Option<usize> {
        (!self.members().is_empty()).then(|| fastrand::usize(..self.members().len()))
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    fn plain(member: &'a Arc<Member>) -> Self {
        Self { member, trial: false }
    }
}

fn weights(members: &[Arc<Member>]) -> Option<Box<[u64]>> {
    let first = members.first()?.instance.weight;
    if members.iter().all(|member| member.instance.weight == first) {
        return None;
    }
    let mut sum = 0_u64;
    let sums = members.iter().map(|member| {
        sum += u64::from(member.instance.weight);
        sum
    });
    Some(sums.collect())
}

/// FNV-1a. The same in every process and every version, so that all callers agree on where a key goes.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(hash)
}

/// The last step of splitmix64, for what FNV does not spread.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
