//! Instances that take calls side by side, each as many as its weight says.

use std::sync::Arc;

use super::{Policy, member::Member};

/// An instance is left for another one that costs so many times less: what is smaller is noise.
const WORSE: f32 = 2.0;
/// Multiples of the golden ratio fill a range evenly: each gets its share, and no long run of calls.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Members and their weights.
#[derive(Debug, Default)]
pub(super) struct Lane {
    members: Box<[Arc<Member>]>,
    /// The weights of each member and all before it; none when all are equal.
    sums: Option<Box<[u64]>>,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(weighted: Vec<(Arc<Member>, u64)>) -> Self {
        let first = weighted.first().map(|(_, weight)| *weight);
        let equal = weighted.iter().all(|(_, weight)| Some(*weight) == first);
        let mut sum = 0_u64;
        let sums = weighted.iter().map(|(_, weight)| {
            sum = sum.saturating_add(*weight);
            sum
        });
        let sums = (!equal).then(|| sums.collect());
        Self { members: weighted.into_iter().map(|(member, _)| member).collect(), sums }
    }

    pub(super) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The one whose turn it is. `turn` counts up from call to call.
    pub(super) fn choose(&self, policy: Policy, turn: usize) -> Option<&Arc<Member>> {
        let nth = match policy {
            Policy::Weighted | Policy::RoundRobin => self.in_turn(turn)?,
            Policy::Random => self.at_random()?,
            Policy::PeakEwma => self.around_the_slow(turn)?,
        };
        self.members.get(nth)
    }

    fn in_turn(&self, turn: usize) -> Option<usize> {
        match &self.sums {
            None => turn.checked_rem(self.members.len()),
            Some(sums) => Some(at(sums, u64::try_from(turn).unwrap_or_default().wrapping_mul(GOLDEN))),
        }
    }

    fn at_random(&self) -> Option<usize> {
        match &self.sums {
            _ if self.members.is_empty() => None,
            None => Some(fastrand::usize(..self.members.len())),
            Some(sums) => Some(at(sums, fastrand::u64(..))),
        }
    }

    /// The one whose turn it is, unless another one at random promises a much faster answer. So equals have equal shares.
    fn around_the_slow(&self, turn: usize) -> Option<usize> {
        let (first, other) = (self.in_turn(turn)?, self.at_random()?);
        if self.members.len() == 1 {
            return Some(first);
        }
        // With themselves nobody is compared: the next stands in.
        let other = if other == first { (other + 1) % self.members.len() } else { other };
        let better = self.cost(other)? * WORSE < self.cost(first)?;
        Some(if better { other } else { first })
    }

    fn cost(&self, nth: usize) -> Option<f32> {
        Some(self.members.get(nth)?.peer.load.cost(self.share(nth)))
    }

    /// A weight, as a multiple of the average.
    #[allow(clippy::cast_precision_loss, reason = "only good for comparisons")]
    fn share(&self, nth: usize) -> f32 {
        let Some(sums) = &self.sums else { return 1.0 };
        let before = nth.checked_sub(1).and_then(|before| sums.get(before)).copied().unwrap_or_default();
        let (sum, all) = (sums.get(nth).copied().unwrap_or_default(), sums.last().copied().unwrap_or_default());
        (sum.saturating_sub(before) as f32 * self.members.len() as f32 / all.max(1) as f32).max(f32::MIN_POSITIVE)
    }
}

/// Whose part of the whole weight is at this part of all numbers.
fn at(sums: &[u64], spread: u64) -> usize {
    let total = sums.last().copied().unwrap_or_default();
    let at = u64::try_from((u128::from(spread) * u128::from(total)) >> 64).unwrap_or_default();
    sums.partition_point(|sum| *sum <= at)
}
