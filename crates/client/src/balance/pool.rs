//! The instances that a call may go to, prepared for fast choices.

use std::sync::Arc;

use roundsman_protocol::{Instance, InstanceId};
use tokio::time::Instant;

use super::{
    Policy,
    eligible::{Eligible, eligible},
    lane::Lane,
    member::Member,
    nearness::Nearness,
    peer::Peers,
};
use crate::snapshot::Snapshot;

/// Multiples of the silver ratio, to spread calls over near and far: in step with the turns within them they would miss some.
const SILVER: u64 = 0x6a09_e667_f3bc_c908;

/// Those of a snapshot's instances that can be used. Immutable; what changes are the peers.
#[derive(Debug)]
pub(crate) struct Pool {
    snapshot: Arc<Snapshot>,
    /// The state of the circuits that it was made in.
    turns: usize,
    eligible: Eligible,
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
        let eligible = eligible(members.collect(), nearness, peers.step(), Instant::now());
        Self { snapshot: Arc::clone(snapshot), turns, eligible }
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

    /// Another one than these, passed over by nobody else; none if there is no other.
    pub(crate) fn choose_other(&self, policy: Policy, turn: usize, tried: &[InstanceId]) -> Option<Choice<'_>> {
        let untried = |member: &Member| !tried.contains(&member.instance.id);
        if let Some(trial) = self.trial(untried) {
            return Some(trial);
        }
        if let Some(chosen) = self.by(policy, turn).filter(|chosen| untried(chosen)) {
            return Some(Choice::plain(chosen));
        }
        // Near or far, what was not tried is hidden by nothing that was.
        self.eligible.lanes.iter().find_map(|lane| {
            let others = || lane.members().iter().filter(|member| untried(member));
            others().nth(turn.checked_rem(others().count())?).map(Choice::plain)
        })
    }

    /// Another one than these, then one that is passed over and was not tried, then any.
    pub(crate) fn choose_except(&self, policy: Policy, turn: usize, tried: &[InstanceId]) -> Option<Choice<'_>> {
        let ejected = || self.eligible.ejected.iter().find(|member| !tried.contains(&member.instance.id));
        self.choose_other(policy, turn, tried)
            .or_else(|| ejected().map(Choice::plain))
            .or_else(|| self.by(policy, turn).map(Choice::plain))
    }

    /// The one for this key: the one whose hash together with the key's is the highest. An instance that goes
    /// leaves only its own keys to the others, one that comes takes its share from all. Those to be avoided are not tried
    /// whether they are back.
    pub(crate) fn choose_for(&self, key: &[u8], avoided: &[InstanceId]) -> Option<Choice<'_>> {
        let key = hash(key);
        let rank = |member: &&Arc<Member>| mix(member.hash ^ key);
        let home = self.lane(mix(key)).members().iter().max_by_key(rank);
        let half_open = self.eligible.half_open.iter();
        let ejected = half_open.filter(|member| !avoided.contains(&member.instance.id)).max_by_key(rank);
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
        let all = self.members().chain(&self.eligible.ejected);
        all.into_iter().find(|member| member.instance.id == *id).map(Choice::plain)
    }

    /// Those that can be used, the near ones first.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.eligible.lanes.iter().flat_map(Lane::members)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.eligible.lanes.iter().all(Lane::is_empty)
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
        self.lane(u64::try_from(turn).unwrap_or_default().wrapping_mul(SILVER)).choose(policy, turn)
    }

    /// Near or far, of the group that is used; `spread` is any number.
    fn lane(&self, spread: u64) -> &Lane {
        let [first, second, third, fourth] = &self.eligible.lanes;
        let [inner, outer] = self.eligible.near;
        let (near, far, share) =
            if self.eligible.group() == 0 { (first, second, inner) } else { (third, fourth, outer) };
        if far.is_empty() || (!near.is_empty() && spread <= share) { near } else { far }
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    fn plain(member: &'a Arc<Member>) -> Self {
        Self { member, trial: false }
    }
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

/// A number that every process makes of the same bytes, as likely as any other.
#[cfg(feature = "http")]
pub(crate) fn spread(bytes: &[u8]) -> u64 {
    hash(bytes)
}

#[cfg(test)]
mod tests;
