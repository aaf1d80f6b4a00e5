//! The limits that both sides know. Those that an operator can change are in the server's configuration.

use std::{ops::RangeInclusive, time::Duration};

/// Longest namespace and service name, as DNS has it.
pub const MAX_NAME_LEN: usize = 63;
/// Longest instance id.
pub const MAX_ID_LEN: usize = 128;
/// Longest host name, as DNS has it.
pub const MAX_HOST_LEN: usize = 253;
/// Longest path of a check.
pub const MAX_PATH_LEN: usize = 1_024;
/// Longest text that a check expects of an answer.
pub const MAX_EXPECT_LEN: usize = 256;
/// Most metadata entries of an instance.
pub const MAX_META_ENTRIES: usize = 64;
/// Most bytes of all metadata keys and values of an instance.
pub const MAX_META_BYTES: usize = 16 * 1_024;
/// Most tags of an instance.
pub const MAX_TAGS: usize = 64;
/// Longest tag, zone or version.
pub const MAX_LABEL_LEN: usize = 128;
/// Most services that one query names.
pub const MAX_QUERY_SERVICES: usize = 1_024;
/// Longest name that a client gives itself to get a subset of its own.
pub const MAX_SUBSET_CLIENT_LEN: usize = 64;
/// How many instances a subset may have.
pub const SUBSET_SIZE: RangeInclusive<u32> = 1..=1_024;
/// Longest bookmark.
pub const MAX_BOOKMARK_LEN: usize = 512;
/// Most ids that a watcher tells that it knows.
pub const MAX_KNOWN_IDS: usize = 1_024;
/// About how many bytes of instances are on one page of an answer.
pub const PAGE_BYTES: usize = 256 * 1_024;
/// Weights of instances.
pub const WEIGHT: RangeInclusive<u32> = 1..=10_000;
/// The weight of an instance that names none.
pub const DEFAULT_WEIGHT: u32 = 1;
/// How often an instance may be visited.
pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// How long a visit may take.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// How long an instance with a ttl check may stay silent.
pub const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);
/// How long an evicted instance may be remembered that asks for a time of its own.
pub const FORGET_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3_600);
/// How long an id may be kept out.
pub const MAX_BLOCK: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Longest wait of one watch; longer ones are cut to it.
pub const MAX_WATCH_WAIT: Duration = Duration::from_secs(300);
/// Largest frame on an RPC connection unless the server says otherwise.
pub const MAX_FRAME_BYTES: usize = 1_024 * 1_024;
/// Largest frame that a client reads: one answer may list very many instances.
pub const MAX_ANSWER_BYTES: usize = 256 * 1_024 * 1_024;
/// How many flips of its status an instance remembers.
pub const HISTORY: usize = 32;
