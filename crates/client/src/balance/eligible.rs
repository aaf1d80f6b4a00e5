//! Which instances come into question: those that are near enough, and not ejected while enough others are there.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{Nearness, member::Member};
use crate::breaker::Standing;

/// The instances of one list.
#[derive(Debug, Default)]
pub(super) struct Eligible {
    /// To be chosen from.
    pub(super) members: Box<[Arc<Member>]>,
    /// Ejected until a moment ago: one call at a time finds out whether they are back.
    pub(super) half_open: Box<[Arc<Member>]>,
    /// All that are passed over. What is known of them must not be forgotten.
    pub(super) ejected: Box<[Arc<Member>]>,
    /// When the next ejection ends.
    pub(super) due: Option<Instant>,
}

/// A member, and whether calls may go to it.
type Standings = Vec<(Arc<Member>, Standing)>;

/// Sorts the members of a list by what may be done with them at this moment.
pub(super) fn eligible(members: Vec<Arc<Member>>, nearness: &Nearness, now: Instant) -> Eligible {
    let standing = |member: Arc<Member>| {
        let standing = member.peer.standing(now);
        (member, standing)
    };
    let mut all: Standings = members.into_iter().map(standing).collect();
    pardon(&mut all);
    all.retain(|(member, _)| nearness.admits(&member.instance));
    let closed = |(_, standing): &(Arc<Member>, Standing)| *standing == Standing::Closed;
    if !all.iter().any(closed) {
        // Nobody else is there: better one that failed than none.
        return Eligible { members: all.into_iter().map(|(member, _)| member).collect(), ..Eligible::default() };
    }
    let ejected = all.iter().filter(|entry| !closed(entry)).map(|(member, _)| Arc::clone(member)).collect();
    let due = all.iter().filter_map(|(_, standing)| standing.ejected_until()).min();
    if all.iter().any(|entry| closed(entry) && nearness.prefers(&entry.0.instance)) {
        all.retain(|(member, _)| nearness.prefers(&member.instance));
    }
    let half_open = all.iter().filter(|(_, standing)| matches!(standing, Standing::HalfOpen(_)));
    let half_open = half_open.map(|(member, _)| Arc::clone(member)).collect();
    let members = all.into_iter().filter(closed).map(|(member, _)| member).collect();
    Eligible { members, half_open, ejected, due }
}

/// At most half of a service is ejected: of more, those whose ejections end first come into question again.
fn pardon(all: &mut Standings) {
    if all.iter().all(|(_, standing)| *standing == Standing::Closed) {
        return;
    }
    let mut services = BTreeMap::<_, (usize, Vec<usize>)>::new();
    for (nth, (member, standing)) in all.iter().enumerate() {
        let (count, ejected) = services.entry(member.instance.name.clone()).or_default();
        *count += 1;
        if *standing != Standing::Closed {
            ejected.push(nth);
        }
    }
    for (count, mut ejected) in services.into_values() {
        ejected.sort_by_key(|nth| all.get(*nth).map(|(_, standing)| Reverse(*standing)));
        for nth in ejected.into_iter().skip(count / 2) {
            if let Some((_, standing)) = all.get_mut(nth) {
                *standing = Standing::Closed;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
