//! File descriptors: as many as the system gives, and what is left for connections to instances.

/// Kept back for everything else: store, doors, log, name lookups, visits that open a connection.
const RESERVE: u64 = 512;

/// So many connections are enough for nearly everybody; fewer are worth a line in the log.
const PLENTY: usize = 10_000;

/// How many descriptors the rounds may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// For connections that stay open between visits.
    pub(crate) kept: usize,
    /// For visits under way.
    pub(crate) visits: usize,
}

/// Raises the soft limit to the hard one and says how many connections to instances may be kept open, at most
/// `kept`, and how many visits may be under way, at most `visits`, when `taken` descriptors can be in use otherwise.
pub(crate) fn shares(kept: usize, visits: usize, taken: usize) -> Shares {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1_024, |(soft, _)| soft)
        }
    };
    let shares = divide(limit, kept, visits, taken);
    if shares.kept < kept.min(PLENTY) {
        tracing::info!(
            limit,
            kept = shares.kept,
            "the limit of open files bounds how many connections to instances stay open; those above it are visited over new connections"
        );
    }
    shares
}

fn divide(limit: u64, kept: usize, visits: usize, taken: usize) -> Shares {
    let taken = u64::try_from(taken).unwrap_or(u64::MAX);
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    // With a small limit the rounds take most of it all the same: what the doors may take is seldom taken.
    let left = limit.saturating_sub(RESERVE.saturating_add(taken));
    Shares { kept: kept.min(size(left.max(limit / 2))), visits: visits.min(size(limit / 3)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_get_what_the_doors_leave_and_never_less_than_most_of_a_small_limit() {
        assert_eq!(divide(1_048_576, 100_000, 10_000, 17_000), Shares { kept: 100_000, visits: 10_000 });
        assert_eq!(divide(20_000, 100_000, 10_000, 17_000), Shares { kept: 10_000, visits: 6_666 });
        assert_eq!(divide(1_024, 100_000, 10_000, 17_000), Shares { kept: 512, visits: 341 });
        assert_eq!(divide(1_024, 10, 5, 0), Shares { kept: 10, visits: 5 });
    }
}
