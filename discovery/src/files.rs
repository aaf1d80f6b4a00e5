//! File descriptors: as many as the system gives, and what is left for connections to instances.

/// Kept back for everything else: store, doors, log, name lookups, visits that open a connection.
const RESERVE: u64 = 512;

/// So many connections are enough for nearly everybody; fewer are worth a line in the log.
const PLENTY: usize = 10_000;

/// Raises the soft limit to the hard one and says how many connections to instances may be kept open, at most
/// `wanted`, when `taken` descriptors can be in use otherwise.
pub(crate) fn budget(wanted: usize, taken: usize) -> usize {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1_024, |(soft, _)| soft)
        }
    };
    let taken = u64::try_from(taken).unwrap_or(u64::MAX);
    // With a small limit the rounds keep a quarter all the same: what the doors may take is seldom taken.
    let left = limit.saturating_sub(RESERVE.saturating_add(taken)).max(limit / 4);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    if left < wanted.min(PLENTY) {
        tracing::info!(
            limit,
            kept = left,
            "the limit of open files bounds how many connections to instances stay open; those above it are visited over new connections"
        );
    }
    left.min(wanted)
}
