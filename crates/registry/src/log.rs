//! The change log: what happened lately in a namespace, so that a watcher gets what changed and not everything.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::edit::Effect;

/// What an entry takes besides the record that it keeps alive.
const ENTRY: usize = 128;
/// A log may always keep this much, whatever the others take.
const LEAST: usize = 64 * 1_024;
/// A chunk is full with so many entries, or with so many bytes: the log forgets a chunk at a time.
const CHUNK: usize = 64;
const CHUNK_BYTES: usize = LEAST / 8;

/// What the logs of all namespaces may keep together, and what one of them may.
#[derive(Debug)]
pub(crate) struct LogBudget {
    total: usize,
    each: usize,
    used: AtomicUsize,
}

/// The last changes of a namespace, by revision without gaps.
#[derive(Debug)]
pub(crate) struct Log {
    /// What no longer changes, so that readers share it.
    chunks: VecDeque<Arc<Chunk>>,
    /// What will be the next chunk.
    tail: Chunk,
    /// How many entries there are.
    len: usize,
    /// The revision of the newest entry.
    revision: u64,
    capacity: usize,
    /// What the entries keep in memory, about.
    bytes: usize,
    budget: Arc<LogBudget>,
}

#[derive(Debug, Default)]
struct Chunk {
    effects: Vec<Effect>,
    bytes: usize,
}

/// The entries after some revision, to be read outside of the lock.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    chunks: Vec<Arc<Chunk>>,
    /// Entries of the first chunk that come before.
    skipped: usize,
    tail: Vec<Effect>,
    len: usize,
}

// === impl LogBudget ===

impl LogBudget {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, each: (total / 16).max(LEAST), used: AtomicUsize::new(0) }
    }

    fn is_exceeded_by(&self, own: usize) -> bool {
        own > self.each || (own > LEAST && self.used.load(Ordering::Relaxed) > self.total)
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new(revision: u64, capacity: usize, budget: Arc<LogBudget>) -> Self {
        Self { chunks: VecDeque::new(), tail: Chunk::default(), len: 0, revision, capacity, bytes: 0, budget }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        let more = weight(&effect);
        self.tail.effects.push(effect);
        self.tail.bytes += more;
        self.bytes += more;
        self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.len += 1;
        self.revision += 1;
        // In a short log chunks are short, so that it keeps about as much as it may.
        if self.tail.effects.len() >= (self.capacity / CHUNK).clamp(1, CHUNK) || self.tail.bytes >= CHUNK_BYTES {
            self.chunks.push_back(Arc::new(std::mem::take(&mut self.tail)));
        }
        while self.len > self.capacity || self.budget.is_exceeded_by(self.bytes) {
            let Some(oldest) = self.chunks.pop_front() else { break };
            self.forget(oldest.effects.len(), oldest.bytes);
        }
    }

    /// Counts a change without keeping it: whoever stood before it needs a snapshot.
    pub(crate) fn skip(&mut self) {
        self.chunks.clear();
        self.tail = Chunk::default();
        self.forget(self.len, self.bytes);
        self.revision += 1;
    }

    fn forget(&mut self, entries: usize, bytes: usize) {
        self.len -= entries;
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The changes after a revision; `None` when the log does not reach back so far. Copies pointers, no more than a
    /// chunk and the list of chunks have.
    pub(crate) fn after(&self, revision: u64) -> Option<Stretch> {
        let len = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        if len > self.len {
            return None;
        }
        let in_tail = len.min(self.tail.effects.len());
        let tail = self.tail.effects.iter().skip(self.tail.effects.len() - in_tail).cloned().collect();
        let (mut chunks, mut left) = (Vec::new(), len - in_tail);
        let mut skipped = 0;
        for chunk in self.chunks.iter().rev() {
            if left == 0 {
                break;
            }
            chunks.push(Arc::clone(chunk));
            skipped = chunk.effects.len().saturating_sub(left);
            left = left.saturating_sub(chunk.effects.len());
        }
        chunks.reverse();
        Some(Stretch { chunks, skipped, tail, len })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.forget(self.len, self.bytes);
    }
}

/// What an entry keeps alive: the record that it replaced. The one after it is alive anyway, or is the one before of a
/// later entry.
fn weight(effect: &Effect) -> usize {
    ENTRY + effect.before.as_ref().map_or(0, |record| record.bytes())
}

// === impl Stretch ===

impl Stretch {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entries, oldest first.
    pub(crate) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.chunks.iter().flat_map(|chunk| &chunk.effects).skip(self.skipped).chain(&self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_has_the_entries_after_its_revision() {
        for capacity in [0, 1, 8, 100, 300, 4_096] {
            let mut log = Log::new(1_000, capacity, Arc::new(LogBudget::new(1 << 30)));
            for n in 1..=700_u64 {
                log.push(Effect { before: None, after: None, reason: n.to_string().into() });
                if n == 350 {
                    log.skip();
                }
            }
            let skip = 1_351;
            let newest = log.revision();
            assert_eq!(newest, 1_701);
            assert!(
                log.len <= capacity && log.len + CHUNK.min(capacity) >= capacity.min(350),
                "{capacity}: {}",
                log.len
            );
            for revision in 990..=newest + 1 {
                let Some(stretch) = log.after(revision) else {
                    let reached = newest - log.len as u64;
                    assert!(revision < reached.max(skip) || revision > newest, "{capacity} {revision}");
                    continue;
                };
                let reasons: Vec<String> = stretch.effects().map(|effect| effect.reason.to_string()).collect();
                let expected: Vec<String> = (revision - 1_000..=700).map(|n| n.to_string()).collect();
                assert_eq!(reasons, expected, "{capacity} {revision}");
                assert_eq!(stretch.len(), expected.len());
            }
        }
    }
}
