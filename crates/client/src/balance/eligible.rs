//! Which instances can be used: those that are near enough, and not ejected while enough others are there.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    lane::Lane,
    member::Member,
    nearness::{Nearness, RANKS},
};
use crate::breaker::Standing;

/// A whole weight of one, so that growing shares are whole numbers.
const WHOLE: f64 = 1_024.0;
/// How many times its share of healthy instances the near have of the calls, as much as all at most: with three in four of them
/// well, nobody goes far.
const OVERPROVISIONING: f64 = 1.4;

/// The instances of one list.
#[derive(Debug, Default)]
pub(super) struct Eligible {
    /// To be chosen from, by rank.
    pub(super) lanes: [Lane; RANKS],
    /// What part of all numbers means the near ones, in each group.
    pub(super) near: [u64; RANKS / 2],
    /// Ejected until a moment ago: one call at a time finds out whether they are back.
    pub(super) half_open: Box<[Arc<Member>]>,
    /// All that are passed over, those first who will not be for long. What is known of them must not be forgotten.
    pub(super) ejected: Box<[Arc<Member>]>,
    /// When to look again: an ejection ends, or a share has grown.
    pub(super) due: Option<Instant>,
}

/// A member, and what may be done with it.
struct Entry {
    member: Arc<Member>,
    standing: Standing,
    rank: usize,
    /// How much of its weight it may have by now, from 0 to 1.
    share: f64,
}

/// Sorts the members of a list by what may be done with them at this moment. Shares that grow do so by steps of this length.
pub(super) fn eligible(members: Vec<Arc<Member>>, nearness: &Nearness, step: Duration, now: Instant) -> Eligible {
    let entry = |member: Arc<Member>| {
        let (standing, share) = member.peer.standing(now);
        Entry { standing, share, rank: nearness.rank(&member.instance), member }
    };
    let mut all: Vec<Entry> = members.into_iter().map(entry).collect();
    pardon(&mut all);
    all.retain(|entry| nearness.admits(&entry.member.instance));
    let nobody = !all.iter().any(Entry::is_closed);
    if nobody {
        // Nobody else is there: better one that failed than none.
        all.iter_mut().for_each(|entry| (entry.standing, entry.share) = (Standing::Closed, 1.0));
    }
    let growing = level(&mut all);
    let mut eligible = Eligible { lanes: lanes(&all), near: near(&all), ..Eligible::default() };
    if nobody {
        return eligible;
    }
    let ends = all.iter().filter_map(|entry| entry.standing.ejected_until());
    eligible.due = ends.chain(growing.then(|| now + step)).min();
    let used = eligible.ranks();
    all.retain(|entry| !entry.is_closed());
    all.sort_by_key(|entry| entry.standing);
    let half_open = all.iter().filter(|entry| matches!(entry.standing, Standing::HalfOpen(_)));
    eligible.half_open =
        half_open.filter(|entry| used.get(entry.rank).is_some_and(|used| *used)).map(Entry::shared).collect();
    eligible.ejected = all.iter().map(Entry::shared).collect();
    eligible
}

/// At most half of a service is ejected: of more, those whose ejections end first can be used again.
fn pardon(all: &mut [Entry]) {
    if all.iter().all(Entry::is_closed) {
        return;
    }
    let mut services = BTreeMap::<_, (usize, Vec<usize>)>::new();
    for (nth, entry) in all.iter().enumerate() {
        let (count, ejected) = services.entry(entry.member.instance.name.clone()).or_default();
        *count += 1;
        if !entry.is_closed() {
            ejected.push(nth);
        }
    }
    for (count, mut ejected) in services.into_values() {
        ejected.sort_by_key(|nth| all.get(*nth).map(|entry| Reverse(entry.standing)));
        for nth in ejected.into_iter().skip(count / 2) {
            if let Some(entry) = all.get_mut(nth) {
                (entry.standing, entry.share) = (Standing::Closed, 1.0);
            }
        }
    }
}

/// A share grows beside others that have theirs: when all are new, nobody is. Whether some are still growing.
fn level(all: &mut [Entry]) -> bool {
    let most = all.iter().filter(|entry| entry.is_closed()).map(|entry| entry.share).fold(0.0, f64::max);
    all.iter_mut().for_each(|entry| entry.share = if most > 0.0 { (entry.share / most).min(1.0) } else { 1.0 });
    all.iter().any(|entry| entry.is_closed() && entry.share < 1.0)
}

fn lanes(all: &[Entry]) -> [Lane; RANKS] {
    std::array::from_fn(|rank| {
        let of_rank = all.iter().filter(|entry| entry.rank == rank && entry.is_closed());
        Lane::new(of_rank.map(|entry| (entry.shared(), entry.weight())).collect())
    })
}

/// What part of a group's calls stays near: as much as the near are well.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is the limit meant")]
#[allow(clippy::cast_precision_loss, reason = "a share of calls need not be exact")]
fn near(all: &[Entry]) -> [u64; RANKS / 2] {
    std::array::from_fn(|group| {
        let (mut well, mut whole) = (0.0, 0.0);
        for entry in all.iter().filter(|entry| entry.rank == 2 * group) {
            whole += f64::from(entry.member.instance.weight.max(1)) * WHOLE;
            if entry.is_closed() {
                well += entry.weight() as f64;
            }
        }
        let share = if whole > 0.0 { well / whole * OVERPROVISIONING } else { 0.0 };
        if share >= 1.0 { u64::MAX } else { (share * u64::MAX as f64) as u64 }
    })
}

// === impl Eligible ===

impl Eligible {
    /// The group that is used: the first in which there is anybody.
    pub(super) fn group(&self) -> usize {
        let has = |group: &usize| self.lanes.iter().skip(2 * group).take(2).any(|lane| !lane.is_empty());
        (0..RANKS / 2).find(has).unwrap_or_default()
    }

    /// Which ranks take calls, or would if they had anybody to take them.
    fn ranks(&self) -> [bool; RANKS] {
        let group = self.group();
        std::array::from_fn(|rank| {
            // Whoever comes before them is worth a trial. The far are called only while the near need them.
            let needed = rank % 2 == 0 || self.near.get(group).is_none_or(|near| *near < u64::MAX);
            rank / 2 <= group && needed
        })
    }
}

// === impl Entry ===

impl Entry {
    fn is_closed(&self) -> bool {
        self.standing == Standing::Closed
    }

    fn shared(&self) -> Arc<Member> {
        Arc::clone(&self.member)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 1,024")]
    fn weight(&self) -> u64 {
        // A weight of none is none that a server lets in; from wherever it came, it must not hide the instance.
        u64::from(self.member.instance.weight.max(1)) * (self.share * WHOLE).max(1.0) as u64
    }
}

#[cfg(test)]
pub(crate) mod tests;
