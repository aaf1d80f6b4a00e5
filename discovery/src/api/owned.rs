//! What one caller registered, and how much of it may be there.

use std::collections::HashSet;

use roundsman_protocol::InstanceId;

/// How many of a caller's instances are looked up for each registration beyond its share.
const LOOKED_UP: usize = 256;

/// What a caller registered and did not deregister: when it is gone, they are visited at once.
#[derive(Debug, Default)]
pub(super) struct Owned {
    ids: HashSet<InstanceId>,
    /// Registrations on their way that need room.
    coming: usize,
    /// The ids of all that are on their way and have one: whoever does not wait for the answer is their owner all the same.
    named: Vec<InstanceId>,
    /// Registrations beyond its share since that was looked at last, each counted as so many look-ups.
    refused: usize,
}

// === impl Owned ===

impl Owned {
    /// Room for one more within `limit`, if there is any: how much it takes, which is none for one that is registered
    /// already. Those that left by themselves, or died long ago, do not count; `is_there` tells.
    pub(super) fn make_room(
        &mut self,
        id: Option<&InstanceId>,
        limit: usize,
        is_there: impl Fn(&InstanceId) -> bool,
    ) -> Option<usize> {
        if id.is_some_and(|id| self.ids.contains(id)) {
            self.named.extend(id.cloned());
            return Some(0);
        }
        if self.len() >= limit {
            // Each refusal pays for a few that are looked up.
            self.refused += LOOKED_UP;
            if self.refused < self.ids.len() {
                return None;
            }
            self.refused = 0;
            self.ids.retain(is_there);
            if self.len() >= limit {
                return None;
            }
        }
        self.coming += 1;
        self.named.extend(id.cloned());
        Some(1)
    }

    /// One that room was made for is registered.
    pub(super) fn keep(&mut self, id: InstanceId) {
        self.ids.insert(id);
    }

    /// So much of the room that was made is needed no longer: what it was for is registered, or was refused.
    pub(super) fn give_back(&mut self, room: usize, id: Option<&InstanceId>) {
        self.coming = self.coming.saturating_sub(room);
        if let Some(nth) = self.named.iter().position(|named| Some(named) == id) {
            self.named.swap_remove(nth);
        }
    }

    pub(super) fn has(&self, id: &InstanceId) -> bool {
        self.ids.contains(id) || self.named.contains(id)
    }

    pub(super) fn forget(&mut self, id: &InstanceId) {
        self.ids.remove(id);
    }

    /// All of them; from now on there is none.
    pub(super) fn take(&mut self) -> HashSet<InstanceId> {
        std::mem::take(&mut self.ids)
    }

    fn len(&self) -> usize {
        self.ids.len() + self.coming
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn id(n: usize) -> InstanceId {
        format!("a-{n}").parse().unwrap()
    }

    #[test]
    fn the_share_counts_those_on_their_way_and_not_those_that_left() {
        let mut owned = Owned::default();
        for expected in [Some(1), Some(1), None] {
            assert_eq!(owned.make_room(None, 2, |_| true), expected, "two are on their way");
        }
        owned.coming = 0;
        owned.ids.extend([id(1), id(2)]);
        assert_eq!(owned.make_room(Some(&id(1)), 2, |_| true), Some(0), "its own may register again");
        assert_eq!(owned.make_room(Some(&id(3)), 2, |_| true), None);
        assert_eq!(owned.make_room(Some(&id(3)), 2, |known| *known == id(1)), Some(1), "one has left");
        owned.forget(&id(1));
        assert!(owned.take().is_empty());
    }

    #[test]
    fn refusals_do_not_look_up_everything_each_time() {
        let (mut owned, looked_up) = (Owned::default(), Cell::new(0));
        owned.ids.extend((0..10 * LOOKED_UP).map(id));
        for _ in 0..100 {
            let there = |_: &InstanceId| {
                looked_up.set(looked_up.get() + 1);
                true
            };
            assert_eq!(owned.make_room(None, 10 * LOOKED_UP, there), None);
        }
        assert_eq!(looked_up.get(), 100 * LOOKED_UP);
    }
}
