//! What callers may make this server keep in memory: a budget for the process, of which no namespace gets all.
//!
//! Accounted for is what grows with what callers do and has no other bound: frames that are still coming in, answers
//! that are not yet read, watches that wait. What is registered is bounded by the registry, in bytes as well.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use roundsman_protocol::{DiscoveryError, Namespace, status::MemoryStatus};
use roundsman_registry::Registry;

use crate::metrics::{Metrics, whole};

/// Callers' buffers never need more than this, however large the machine is.
const MOST_FOR_CALLERS: u64 = 96 * MIB;
/// And get this much, however small it is.
const LEAST_FOR_CALLERS: u64 = 8 * MIB;
/// Change logs never need more than this.
const MOST_FOR_LOGS: u64 = 64 * MIB;
const MIB: u64 = 1_024 * 1_024;

/// How the memory that the server may take is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// `--max-memory`, or half of what the machine or the cgroup has.
    pub(crate) limit: u64,
    /// What is registered.
    pub(crate) instances: usize,
    /// What callers send and do not read.
    pub(crate) callers: usize,
    /// What changed lately, for watchers.
    pub(crate) logs: usize,
}

/// What callers may make the server keep.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    /// What one namespace may take of it.
    share: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_namespace: HashMap<Namespace, usize>,
    refused: u64,
}

/// Bytes that are accounted for until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    namespace: Namespace,
    bytes: usize,
}

// === impl Division ===

impl Division {
    /// Divides `wanted`, or half of what there is.
    pub(crate) fn of(wanted: Option<u64>) -> Self {
        let limit = wanted.unwrap_or_else(|| available() / 2);
        let callers = (limit / 8).clamp(LEAST_FOR_CALLERS, MOST_FOR_CALLERS);
        let logs = (limit / 8).min(MOST_FOR_LOGS);
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let instances = limit.saturating_sub(callers + logs);
        Self { limit, instances: size(instances), callers: size(callers), logs: size(logs) }
    }
}

/// The memory of the machine, or of the cgroup if that has less. Where neither tells, a gigabyte.
fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1_024)
    });
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let cgroup = cgroup.iter().find_map(|path| read(path)?.trim().parse::<u64>().ok());
    machine.into_iter().chain(cgroup).min().unwrap_or(1_024 * MIB)
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, share: limit / 4 * 3, used: Mutex::default() })
    }

    /// Adds how much is taken of what `division` allows, what is registered included.
    pub(crate) fn export(self: &Arc<Self>, division: Division, registry: &Arc<Registry>, metrics: &mut Metrics) {
        let (budget, registry) = (Arc::clone(self), Arc::clone(registry));
        let used = move || whole(budget.status(division.limit, registry.bytes()).used);
        metrics.reading("memory_used_bytes", "Memory that is registered or kept for callers.", used);
        let limit = move || whole(division.limit);
        metrics.reading("memory_limit_bytes", "Memory that may be taken, as --max-memory has it.", limit);
    }

    /// What all callers together may make the server keep.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes in bytes that a caller of `namespace` makes the server keep.
    ///
    /// # Errors
    /// When the budget, or the namespace's share of it, is used up.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        namespace: &Namespace,
        bytes: usize,
    ) -> Result<Reservation, DiscoveryError> {
        self.try_reserve(namespace, bytes).ok_or_else(|| {
            self.used().refused += 1;
            let value = u64::try_from(self.limit).unwrap_or(u64::MAX);
            DiscoveryError::LimitReached { limit: "--max-memory, callers' buffers".to_owned(), value }
        })
    }

    /// The same for what can be done without: nobody is refused anything.
    pub(crate) fn try_reserve(self: &Arc<Self>, namespace: &Namespace, bytes: usize) -> Option<Reservation> {
        let mut used = self.used();
        let own = used.by_namespace.get(namespace).copied().unwrap_or_default();
        if used.total.saturating_add(bytes) > self.limit || own.saturating_add(bytes) > self.share {
            return None;
        }
        used.add(namespace, bytes);
        Some(Reservation { budget: Arc::clone(self), namespace: namespace.clone(), bytes })
    }

    /// How things stand. `registered`: what is registered takes so much.
    pub(crate) fn status(&self, limit: u64, registered: usize) -> MemoryStatus {
        let used = self.used();
        let bytes = used.total.saturating_add(registered);
        MemoryStatus { limit, used: u64::try_from(bytes).unwrap_or(u64::MAX), refused: used.refused }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // Nothing can panic between two related changes of the counts.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Used ===

impl Used {
    fn add(&mut self, namespace: &Namespace, bytes: usize) {
        self.total += bytes;
        match self.by_namespace.get_mut(namespace) {
            Some(own) => *own += bytes,
            None => drop(self.by_namespace.insert(namespace.clone(), bytes)),
        }
    }

    fn sub(&mut self, namespace: &Namespace, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(own) = self.by_namespace.get_mut(namespace) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }
}

// === impl Reservation ===

impl Reservation {
    /// How many bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// It turned out to be so many bytes.
    pub(crate) fn settle(&mut self, bytes: usize) {
        let mut used = self.budget.used();
        used.sub(&self.namespace, self.bytes);
        used.add(&self.namespace, bytes);
        drop(used);
        self.bytes = bytes;
    }
}

/// Bytes that are accounted for until the last one who has them lets go of them.
struct Kept {
    bytes: Vec<u8>,
    _reservation: Arc<Reservation>,
}

/// Bytes to share, accounted for until the last one who has them lets go of them.
pub(crate) fn kept(bytes: Vec<u8>, reservation: &Arc<Reservation>) -> Bytes {
    Bytes::from_owner(Kept { bytes, _reservation: Arc::clone(reservation) })
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used().sub(&self.namespace, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_gets_all_and_what_is_dropped_is_given_back() {
        let budget = Budget::new(100);
        let (a, b): (Namespace, Namespace) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut first = budget.reserve(&a, 70).unwrap();
        let refusal = budget.reserve(&a, 10).unwrap_err();
        assert!(matches!(refusal, DiscoveryError::LimitReached { limit, .. } if limit.starts_with("--max-memory")));
        let second = budget.reserve(&b, 30).unwrap();
        assert!(budget.reserve(&b, 1).is_err(), "all is taken");
        first.settle(10);
        assert_eq!(budget.status(7, 5), MemoryStatus { limit: 7, used: 45, refused: 2 });
        drop((first, second));
        assert_eq!(budget.status(7, 0).used, 0);
        assert!(budget.used().by_namespace.is_empty());
    }

    #[test]
    fn memory_is_divided_whatever_there_is() {
        let small = Division::of(Some(64 * MIB));
        assert_eq!((small.callers, small.logs), (8 << 20, 8 << 20));
        assert_eq!(small.instances, 48 << 20);
        let large = Division::of(Some(64 << 30));
        assert_eq!((large.callers, large.logs), (96 << 20, 64 << 20));
        assert!(Division::of(None).limit > 0);
        assert_eq!(Division::of(Some(1)).instances, 0);
    }
}
