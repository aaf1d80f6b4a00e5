//! What the task does with the snapshot file.

use std::time::Duration;

use tokio::time::Instant;

use super::{Audience, Task};
use crate::{
    cache::{
        file::{self, Image},
        table::Touched,
        wanted,
    },
    snapshot::Stale,
};

/// For so long a server's word on a list is waited for before it is taken from the file: where all is well it is there by
/// then, and nobody begins with an old list.
const WORD: Duration = Duration::from_millis(50);

// === impl Task ===

impl Task {
    /// Reads what earlier lives have saved.
    pub(super) async fn read(&self) {
        let (Some(path), Some(images)) = (self.cache.settings.snapshot_file.clone(), &self.images) else { return };
        let read = file::read(path, Image::new(self.cache.settings.namespace.clone())).await;
        images.send_if_modified(|image| {
            image.absorb(read);
            // Nothing that is not in the file.
            false
        });
    }

    /// Somebody waits for a list, which a server is about to tell.
    pub(super) fn expect_word(&mut self) {
        if self.images.is_some() {
            self.word_due.get_or_insert(Instant::now() + WORD);
        }
    }

    /// No server answers: what was saved is better than nothing.
    pub(super) fn fall_back(&mut self) {
        self.word_due = None;
        let (Some(wanted), Some(images)) = (wanted(&self.feeds()), &self.images) else { return };
        let image = images.borrow();
        let (now, clock) = (Instant::now(), self.cache.settings.clock.now());
        let mut restored = false;
        for (name, saved) in &image.services {
            if wanted.is_empty() || wanted.binary_search(name).is_ok() {
                let stale = Stale::aged(now, clock.since(saved.confirmed_at));
                restored |= self.table.restore(name, &saved.instances, stale);
            }
        }
        drop(image);
        if restored {
            if wanted.is_empty() {
                self.table.assume_complete();
            }
            self.show(&Touched::All);
        }
    }

    /// Hands on what is certain to the task that saves it.
    pub(super) fn save(&mut self) {
        let Some(images) = &self.images else { return };
        // Of a service that others follow as a whole, a part is not worth saving.
        let whole = match self.audience {
            Audience::All => Vec::new(),
            Audience::One { .. } => self.cache.feeds(),
        };
        let now = self.cache.settings.clock.now();
        images.send_modify(|image| {
            image.update(&self.table, now, |name| whole.iter().any(|feed| feed.query.names(name)));
        });
    }
}
