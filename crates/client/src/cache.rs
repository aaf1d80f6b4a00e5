//! What all resolvers of a client share: one watch, and one list per question. A subset is a question of its own to the
//! servers, and has a watch of its own.

mod asking;
mod file;
mod known;
mod missing;
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
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::file::Image;
use crate::{
    link::Link,
    snapshot::{Snapshot, Stale},
};

pub(crate) use asking::{MOST_PAGES, Question, Told, ask, last_of_each};
pub(crate) use known::{Difference, Known};
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
    /// What is saved, where a file was named: by one task for all, which ends with the last that holds it.
    images: Mutex<Weak<watch::Sender<Image>>>,
}

/// The list that answers one query, kept up to date for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) query: Query,
    /// Whether instances that a server new to us does not know stay for a while.
    keeps_missing: bool,
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<Arc<Snapshot>>,
    /// Whether the task of a subset runs.
    started: Once,
    /// Ends it, when nobody holds the list any more.
    dropped: DropGuard,
}

/// Whose lists a task keeps.
#[derive(Clone, Debug)]
enum Audience {
    /// All lists that are no subsets.
    All,
    /// That of one subset.
    One { feed: Weak<Feed>, query: Query, dropped: CancellationToken },
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(settings: Settings) -> Self {
        let (subscribed, started, images) = (Notify::new(), Once::new(), Mutex::default());
        Self { settings, feeds: Mutex::default(), subscribed, started, images }
    }

    /// The list for a query; the one there is, if somebody holds it already.
    pub(crate) fn subscribe(&self, query: Query, keeps_missing: bool) -> Arc<Feed> {
        let mut feeds = self.lock();
        feeds.retain(|feed| feed.strong_count() > 0);
        let same = |feed: &Arc<Feed>| feed.query == query && feed.keeps_missing == keeps_missing;
        if let Some(feed) = feeds.iter().filter_map(Weak::upgrade).find(same) {
            return feed;
        }
        let feed = Arc::new(Feed { keeps_missing, ..Feed::new(query) });
        feeds.push(Arc::downgrade(&feed));
        drop(feeds);
        if feed.query.subset.is_none() {
            self.subscribed.notify_one();
        }
        feed
    }

    /// Starts the task that keeps this list, once. `link` and `stop` are those of the client.
    pub(crate) fn start(
        self: &Arc<Self>,
        feed: &Arc<Feed>,
        link: &watch::Receiver<Link>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let audience = if feed.query.subset.is_some() {
            let (query, dropped) = (feed.query.clone(), feed.dropped.token().clone());
            Audience::One { feed: Arc::downgrade(feed), query, dropped }
        } else {
            Audience::All
        };
        let started = if feed.query.subset.is_some() { &feed.started } else { &self.started };
        started.call_once(|| {
            let images = self.images(tasks);
            tasks.spawn(task::Task::new(Arc::clone(self), audience, link.clone(), stop.clone(), images).run());
        });
    }

    /// Where the task that saves is told what there is to save.
    fn images(&self, tasks: &TaskTracker) -> Option<Arc<watch::Sender<Image>>> {
        let path = self.settings.snapshot_file.clone()?;
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = images.upgrade() {
            return Some(images);
        }
        let (saver, new) = file::Saver::new(path);
        tasks.spawn(saver.run());
        let new = Arc::new(new);
        *images = Arc::downgrade(&new);
        Some(new)
    }

    /// The lists that somebody holds, those of subsets left out.
    fn feeds(&self) -> Vec<Arc<Feed>> {
        let feeds = self.lock();
        feeds.iter().filter_map(Weak::upgrade).filter(|feed| feed.query.subset.is_none()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The services that lists are about, sorted: an empty list means all of the namespace. `None`: no one at all.
fn wanted(feeds: &[Arc<Feed>]) -> Option<Vec<ServiceName>> {
    if feeds.is_empty() {
        return None;
    }
    let mut wanted = Vec::new();
    for feed in feeds {
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

// === impl Audience ===

impl Audience {
    /// The lists that somebody holds.
    fn feeds(&self, cache: &Cache) -> Vec<Arc<Feed>> {
        match self {
            Self::All => cache.feeds(),
            Self::One { feed, .. } => feed.upgrade().into_iter().collect(),
        }
    }

    /// Returns when there is one more of them.
    async fn subscribed(&self, cache: &Cache) {
        match self {
            Self::All => cache.subscribed.notified().await,
            Self::One { .. } => std::future::pending().await,
        }
    }

    /// Returns when there will be none any more.
    async fn gone(&self) {
        match self {
            Self::All => std::future::pending().await,
            Self::One { dropped, .. } => dropped.cancelled().await,
        }
    }
}

// === impl Feed ===

impl Feed {
    fn new(query: Query) -> Self {
        let unknown = Arc::new(Snapshot::unknown(Stale::since(Instant::now())));
        let (changes, _) = watch::channel(Arc::clone(&unknown));
        let (started, dropped) = (Once::new(), CancellationToken::new().drop_guard());
        Self { query, keeps_missing: false, current: ArcSwap::new(unknown), changes, started, dropped }
    }

    /// A list that stays as it is, unless a test says otherwise.
    #[cfg(test)]
    pub(crate) fn fixed(query: Query, instances: Vec<Arc<roundsman_protocol::Instance>>) -> Self {
        let feed = Self::new(query);
        feed.show(Snapshot::known(instances, None));
        feed
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
    pub(crate) fn show(&self, snapshot: Snapshot) {
        if self.current.load().is_same(&snapshot) {
            return;
        }
        let snapshot = Arc::new(snapshot);
        self.current.store(Arc::clone(&snapshot));
        self.changes.send_replace(snapshot);
    }
}
