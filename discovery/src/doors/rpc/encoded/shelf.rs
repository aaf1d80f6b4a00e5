//! Answers that are kept for the next one who asks, as many as there is room for.

use std::{collections::HashMap, time::Duration};

use roundsman_protocol::Namespace;
use tokio::time::Instant;

use super::{Answer, Question};
use crate::memory::Reservation;

/// How long an answer is kept after somebody asked for it. Watchers who began together read at different speeds.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// How many answers a namespace may have here, and how many all may.
const OF_NAMESPACE: usize = 512;
const OF_ALL: usize = 4_096;

/// Answers in the making, or made.
#[derive(Debug)]
pub(super) struct Shelf {
    namespaces: HashMap<Namespace, Own>,
    /// How many bytes the answers of one namespace may have, and of all.
    each: usize,
    all: usize,
}

/// The answers of a namespace.
#[derive(Debug, Default)]
struct Own {
    slots: HashMap<Question, Slot>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    answer: Answer,
    /// 0 until it is made.
    bytes: usize,
    used: Instant,
    _room: Reservation,
}

// === impl Shelf ===

impl Shelf {
    /// One for a server whose callers may keep so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { namespaces: HashMap::new(), each: limit / 8 * 3, all: limit / 4 * 3 }
    }

    /// The answer to a question. One that could not be made is none.
    pub(super) fn get(&mut self, question: &Question, now: Instant) -> Option<Answer> {
        let slot = self.namespaces.get_mut(&question.namespace)?.slots.get_mut(question)?;
        if matches!(slot.answer.peek(), Some(Err(_))) {
            return None;
        }
        slot.used = now;
        Some(slot.answer.clone())
    }

    /// Keeps an answer that is about to be made. Returns the one to wait for: somebody else may have been faster.
    pub(super) fn put(&mut self, question: Question, answer: Answer, room: Reservation, now: Instant) -> Answer {
        if let Some(faster) = self.get(&question, now) {
            return faster;
        }
        self.drop_unused(now);
        let own = self.namespaces.entry(question.namespace.clone()).or_default();
        own.remove(&question);
        own.shrink(OF_NAMESPACE, self.each);
        if own.slots.len() < OF_NAMESPACE {
            own.slots.insert(question, Slot { answer: answer.clone(), bytes: 0, used: now, _room: room });
        }
        self.shrink();
        answer
    }

    /// An answer was made and has so many bytes.
    pub(super) fn made(&mut self, question: &Question, bytes: usize) {
        let Some(own) = self.namespaces.get_mut(&question.namespace) else { return };
        let Some(slot) = own.slots.get_mut(question) else { return };
        own.bytes = own.bytes - slot.bytes + bytes;
        slot.bytes = bytes;
        own.shrink(OF_NAMESPACE, self.each);
        self.shrink();
    }

    /// Drops the answers of a namespace that are made. Those who wait for them have them all the same.
    pub(super) fn clear(&mut self, namespace: &Namespace) {
        if let Some(own) = self.namespaces.get_mut(namespace) {
            own.shrink(0, 0);
        }
    }

    /// Drops what nobody asked for lately.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.drop_unused(now);
        if self.namespaces.is_empty() {
            self.namespaces.shrink_to_fit();
        }
    }

    fn drop_unused(&mut self, now: Instant) {
        for own in self.namespaces.values_mut() {
            let dropped = own.slots.extract_if(|_, slot| now.saturating_duration_since(slot.used) >= KEPT_FOR);
            own.bytes -= dropped.map(|(_, slot)| slot.bytes).sum::<usize>();
        }
        self.namespaces.retain(|_, own| !own.slots.is_empty());
    }

    /// Makes room when all together have too much: at the cost of whoever has most.
    fn shrink(&mut self) {
        loop {
            let count: usize = self.namespaces.values().map(|own| own.slots.len()).sum();
            let bytes: usize = self.namespaces.values().map(|own| own.bytes).sum();
            if count <= OF_ALL && bytes <= self.all {
                return;
            }
            let Some(most) = self.namespaces.values_mut().max_by_key(|own| (own.bytes, own.slots.len())) else {
                return;
            };
            let (slots, bytes) = (most.slots.len(), most.bytes);
            most.shrink(slots / 2, bytes / 2);
            if most.slots.len() == slots {
                // What is left is in the making.
                return;
            }
        }
    }
}

// === impl Own ===

impl Own {
    fn remove(&mut self, question: &Question) {
        self.bytes -= self.slots.remove(question).map_or(0, |slot| slot.bytes);
    }

    /// Drops answers until there are no more than that, those that nobody asked for the longest first. Answers in the
    /// making stay: somebody waits for them.
    fn shrink(&mut self, most: usize, most_bytes: usize) {
        if self.slots.len() <= most && self.bytes <= most_bytes {
            return;
        }
        let made = self.slots.iter().filter(|(_, slot)| slot.bytes > 0);
        let mut by_use: Vec<(Instant, Question)> = made.map(|(question, slot)| (slot.used, question.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, question) in by_use {
            // A little more than is needed, so that the next one has room without looking through all.
            if self.slots.len() <= most / 4 * 3 && self.bytes <= most_bytes / 4 * 3 {
                return;
            }
            self.remove(&question);
        }
    }
}
