//! How much of everything.

use std::{ops::Range, time::Duration};

/// The sizes of a soak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) time: Duration,
    /// Processes that hold most of the instances, and how many these are.
    pub(super) hosts: u32,
    pub(super) hosted: u32,
    /// Instances that renew a ttl.
    pub(super) renewing: u32,
    /// Instances with a process of their own.
    alone: u32,
    /// Watchers of everything, and of one service.
    pub(super) wide: u32,
    pub(super) narrow: u32,
    /// Time between two things that happen to instances.
    pub(super) every: Duration,
    /// Time between two lookups.
    pub(super) lookup: Duration,
}

// === impl Plan ===

impl Plan {
    pub(super) const fn new(minutes: u32) -> Self {
        Self {
            time: Duration::from_secs(minutes as u64 * 60),
            hosts: 4,
            hosted: 1_750,
            renewing: 100,
            alone: 150,
            wide: 50,
            narrow: 450,
            every: Duration::from_millis(1_200),
            lookup: Duration::from_millis(10),
        }
    }

    pub(super) const fn instances(&self) -> u32 {
        self.hosted + self.renewing + self.alone
    }

    /// The numbers of those who renew.
    pub(super) const fn renewing(&self) -> Range<u32> {
        self.hosted..self.hosted + self.renewing
    }

    /// The numbers of those with a process of their own.
    pub(super) const fn singles(&self) -> Range<u32> {
        self.hosted + self.renewing..self.instances()
    }

    pub(super) const fn watchers(&self) -> u32 {
        self.wide + self.narrow
    }
}
