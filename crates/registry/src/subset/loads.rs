//! How many clients each instance has, in order.

use std::collections::BTreeSet;

/// How far a load may be from the mean, in percent, where that is more than rounding.
const SLACK: u64 = 5;

/// Instances by load, and among equals by point.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeSet<Rank>);

/// An instance's place in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) load: u32,
    pub(super) point: u32,
    pub(super) number: u32,
}

/// The loads that count as even.
///
/// Below a mean of 20 these are the mean rounded down and up, so that no two loads differ by more
/// than one; above, everything within 5 % of the mean, so that small changes move nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) least: u32,
    pub(super) most: u32,
}

// === impl Loads ===

impl Loads {
    pub(super) fn insert(&mut self, rank: Rank) {
        self.0.insert(rank);
    }

    pub(super) fn remove(&mut self, rank: Rank) {
        self.0.remove(&rank);
    }

    pub(super) fn least(&self) -> Option<Rank> {
        self.0.first().copied()
    }

    pub(super) fn most(&self) -> Option<Rank> {
        self.0.last().copied()
    }

    /// The first that suits: by load, and among equals in a circle from a point on.
    pub(super) fn first(&self, point: u32, suits: impl Fn(u32) -> bool) -> Option<u32> {
        let mut load = self.least()?.load;
        loop {
            let (low, start) = (Rank::least(load, 0), Rank::least(load, point));
            let Some(more) = load.checked_add(1) else {
                return self.0.range(low..).map(|rank| rank.number).find(|number| suits(*number));
            };
            let next = Rank::least(more, 0);
            let mut equals = self.0.range(start..next).chain(self.0.range(low..start));
            if let Some(rank) = equals.find(|rank| suits(rank.number)) {
                return Some(rank.number);
            }
            load = self.0.range(next..).next()?.load;
        }
    }
}

impl Rank {
    fn least(load: u32, point: u32) -> Self {
        Self { load, point, number: 0 }
    }
}

// === impl Band ===

impl Band {
    /// The band when `pairs` are spread over `instances`; `None` without instances.
    pub(super) fn of(pairs: u64, instances: u64) -> Option<Self> {
        let hundredths = instances.checked_mul(100)?;
        let down = pairs.checked_div(instances)?;
        let up = pairs.div_ceil(instances);
        let least = down.min(pairs.saturating_mul(100 - SLACK).div_ceil(hundredths));
        let most = up.max(pairs.saturating_mul(100 + SLACK) / hundredths);
        Some(Self { least: least.try_into().ok()?, most: most.try_into().ok()? })
    }
}
