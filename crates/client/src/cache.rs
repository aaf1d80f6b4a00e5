//! What all resolvers of a client share: one watch, and one list per question.

mod file;
mod table;
mod task;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use roundsman_protocol::{Clock, Namespace, Query, ServiceName, limits};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    link::Link,
    snapshot::{Snapshot, Stale},
};

#[cfg(test)]
pub(crate) use table::tests;

/// How the cache is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: Namespace,
    /// How long a call may take.
    pub(crate) timeout: Duration,
    /// How long an empty answer of a server that is new to us is not believed.
    pub(crate) empty_grace: Duration,
    pub(crate) snapshot_file: Option<PathBuf>,
    pub(crate) clock: Clock,
}

/// The lists that somebody holds. The task behind it starts with the first.
#[derive(Debug)]
pub(crate) struct Cache {
    settings: Settings,
    feeds: Mutex<Vec<Weak<Feed>>>,
    /// Somebody wants a list that nobody wanted before.
    subscribed: Notify,
    started: Once,
}

/// The list that answers one query, kept up to date for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) query: Query,
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<Arc<Snapshot>>,
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, feeds: Mutex::default(), subscribed: Notify::new(), started: Once::new() }
    }

    /// The list for a query; the one there is, if somebody holds it already.
    pub(crate) fn subscribe(&self, query: Query) -> Arc<Feed> {
        let mut feeds = self.lock();
        feeds.retain(|feed| feed.strong_count() > 0);
        if let Some(feed) = feeds.iter().filter_map(Weak::upgrade).find(|feed| feed.query == query) {
            return feed;
        }
        let feed = Arc::new(Feed::new(query));
        feeds.push(Arc::downgrade(&feed));
        drop(feeds);
        self.subscribed.notify_one();
        feed
    }

    /// Starts the task, once. `link` and `stop` are those of the client.
    pub(crate) fn start(self: &Arc<Self>, link: &watch::Receiver<Link>, stop: &CancellationToken, tasks: &TaskTracker) {
        self.started.call_once(|| {
            let images = self.settings.snapshot_file.clone().map(|path| {
                let (saver, images) = file::Saver::new(path);
                tasks.spawn(saver.run());
                images
            });
            tasks.spawn(task::Task::new(Arc::clone(self), link.clone(), stop.clone(), images).run());
        });
    }

    /// The lists that somebody holds.
    fn feeds(&self) -> Vec<Arc<Feed>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The services that they are about, sorted: an empty list means all of the namespace. `None`: no one at all.
    fn wanted(&self) -> Option<Vec<ServiceName>> {
        let feeds = self.feeds();
        if feeds.is_empty() {
            return None;
        }
        let mut wanted = Vec::new();
        for feed in &feeds {
            if feed.query.services.is_empty() {
                return Some(Vec::new());
            }
            wanted.extend(feed.query.services.iter().cloned());
        }
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.len() > limits::MAX_QUERY_SERVICES {
            wanted.clear();
        }
        Some(wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Feed ===

impl Feed {
    fn new(query: Query) -> Self {
        let unknown = Arc::new(Snapshot::unknown(Stale::since(Instant::now())));
        let (changes, _) = watch::channel(Arc::clone(&unknown));
        Self { query, current: ArcSwap::new(unknown), changes }
    }

    /// The list at this moment. Lock-free.
    pub(crate) fn current(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// What is told to those who wait for changes; never later than [`Feed::current`].
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.changes.subscribe()
    }

    /// Shows a list, if it is another one than the one that is shown.
    fn show(&self, snapshot: Snapshot) {
        if self.current.load().is_same(&snapshot) {
            return;
        }
        let snapshot = Arc::new(snapshot);
        self.current.store(Arc::clone(&snapshot));
        self.changes.send_replace(snapshot);
    }
}
