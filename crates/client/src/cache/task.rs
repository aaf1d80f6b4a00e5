//! The task that keeps lists up to date, by one watch: that of all resolvers, or that of a subset.

mod saved;

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Cursor, Query, ServiceName};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Audience, Cache, Feed,
    asking::{Question, Told, ask},
    file::Image,
    table::{Table, Touched},
    wanted,
};
use crate::{
    backoff::Backoff,
    error::Error,
    link::{Line, Link},
};

/// How long one question to the server stays open before it is asked anew.
const WAIT: Duration = Duration::from_secs(30);
/// First and longest pause after a refusal.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The task's state. It holds nothing of [`Discovery`](crate::Discovery), whose last handle ends it.
#[derive(Debug)]
pub(crate) struct Task {
    cache: Arc<Cache>,
    audience: Audience,
    table: Table,
    /// The connection by which the table's cursor came.
    told_by: Option<u64>,
    link: watch::Receiver<Link>,
    stop: CancellationToken,
    backoff: Backoff,
    /// So many answers in a row came too soon to tell anything.
    early: u32,
    /// When lists that no server has told are taken from the file; `None` while nobody waits for one.
    word_due: Option<Instant>,
    /// What was saved, by earlier lives or by this one.
    images: Option<Arc<watch::Sender<Image>>>,
}

/// What the server is asked next.
#[derive(Debug)]
enum Step {
    /// The watch itself.
    Watch { services: Vec<ServiceName>, after: Option<Cursor>, wait: Duration },
    /// A snapshot of services that join it.
    Add { services: Vec<ServiceName> },
}

// === impl Task ===

impl Task {
    pub(crate) fn new(
        cache: Arc<Cache>,
        audience: Audience,
        link: watch::Receiver<Link>,
        stop: CancellationToken,
        images: Option<Arc<watch::Sender<Image>>>,
    ) -> Self {
        let table = Table::new(cache.settings.empty_grace, Instant::now());
        let backoff = Backoff::new(PAUSES.0, PAUSES.1);
        Self { cache, audience, table, told_by: None, link, stop, backoff, early: 0, word_due: None, images }
    }

    /// Keeps the lists up to date until it is told to stop; then they stay as they are, marked stale.
    pub(crate) async fn run(mut self) {
        let (stop, audience) = (self.stop.clone(), self.audience.clone());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = audience.gone() => return,
            () = self.keep_fresh() => {}
        }
        self.lost();
    }

    async fn keep_fresh(&mut self) {
        self.read().await;
        self.expect_word();
        loop {
            let link = self.link.borrow_and_update().clone();
            match link {
                Link::Up(connection) => {
                    let ended = self.follow(connection.generation).await;
                    self.lost();
                    let Err(error) = ended else { continue };
                    tracing::warn!(%error, "the watch of the resolvers was refused; trying again");
                    self.fall_back();
                    sleep(self.backoff.next()).await;
                }
                Link::Away { failed_rounds, .. } => {
                    if failed_rounds > 0 {
                        self.fall_back();
                    }
                    tokio::select! {
                        changed = self.link.changed() => if changed.is_err() { return },
                        () = self.audience.subscribed(&self.cache) => {
                            self.expect_word();
                            self.show(&Touched::All);
                        }
                        // The servers may be frozen, which takes a while to find out.
                        () = until(self.word_due) => self.fall_back(),
                    }
                }
                Link::Closed => return,
            }
        }
    }

    /// Follows all that is wanted for as long as this connection lasts.
    async fn follow(&mut self, generation: u64) -> Result<(), Error> {
        let link = self.link.clone();
        // At first only this: what happened meanwhile? The lists are stale until that is answered.
        let mut caught_up = false;
        loop {
            let step = self.next_step(caught_up);
            let answer = tokio::select! {
                biased;
                () = gone(link.clone(), generation) => return Ok(()),
                answer = self.ask(step.as_ref()) => answer,
                () = self.audience.subscribed(&self.cache) => {
                    // What is known already need not wait for the server.
                    self.show(&Touched::Some([].into()));
                    self.expect_word();
                    // The watch must stand at this moment for others to join it.
                    caught_up = false;
                    continue;
                }
                () = until(self.table.next_due()) => {
                    self.table.begin_anew();
                    caught_up = false;
                    continue;
                }
                () = until(self.word_due) => {
                    // Asked again with what is known now: what comes is the difference to that.
                    self.fall_back();
                    continue;
                }
            };
            let Told { update, by, early } = match answer {
                Ok(told) => told,
                Err(error) => {
                    self.told_by = None;
                    if matches!(error, Error::Unreachable { .. }) {
                        // It broke, which is told in a moment.
                        gone(link, generation).await;
                        return Ok(());
                    }
                    return Err(error);
                }
            };
            let now = Instant::now();
            let touched = match step {
                Some(Step::Watch { services, wait, .. }) => {
                    (caught_up, self.told_by) = (true, by);
                    self.early = if early { self.early.saturating_add(1) } else { 0 };
                    if !wait.is_zero() && !early {
                        self.backoff.reset();
                    }
                    self.table.apply(&services, update, now)
                }
                Some(Step::Add { services }) => self.table.add(&services, update, now),
                None => continue,
            };
            self.show(&touched);
            self.save();
            if self.early > 1 {
                tokio::select! {
                    () = gone(link.clone(), generation) => return Ok(()),
                    () = sleep(self.backoff.next()) => {}
                }
            }
            if self.table.missing(&wanted(&self.feeds()).unwrap_or_default()).is_none() {
                self.word_due = None;
            }
        }
    }

    fn next_step(&mut self, caught_up: bool) -> Option<Step> {
        let feeds = self.feeds();
        let Some(wanted) = wanted(&feeds) else {
            self.table.clear(Instant::now());
            return None;
        };
        self.table.retain(&wanted);
        self.table.keep_missing(feeds.iter().any(|feed| feed.keeps_missing));
        let after = self.table.cursor();
        let watch = |services, wait| Some(Step::Watch { services, after, wait });
        let Some(missing) = self.table.missing(&wanted).filter(|_| after.is_some()) else {
            return watch(wanted, if caught_up { WAIT } else { Duration::ZERO });
        };
        let followed = self.table.followed();
        if followed.is_empty() {
            self.table.begin_anew();
            return Some(Step::Watch { services: wanted, after: None, wait: Duration::ZERO });
        }
        if caught_up {
            return Some(Step::Add { services: missing });
        }
        watch(followed, Duration::ZERO)
    }

    /// Asks; without a question, waits for ever.
    async fn ask(&self, step: Option<&Step>) -> Result<Told, Error> {
        let (services, after, wait) = match step {
            Some(Step::Watch { services, after, wait }) => (services, *after, *wait),
            Some(Step::Add { services }) => (services, None, Duration::ZERO),
            None => std::future::pending().await,
        };
        // Filters are applied here, so that one watch serves many. Only a subset is one of what they match.
        let (line, query) = match &self.audience {
            Audience::All => (Line::Lists, Query { services: services.clone(), ..Query::default() }),
            Audience::One { query, .. } => (Line::Subset, query.clone()),
        };
        let (ids, digest) = (|| self.table.ids(services), || self.table.digest(services));
        let question = Question::new(line, query, after, wait, self.told_by).knowing(ids, digest);
        ask(&self.link, self.cache.settings.timeout, question).await
    }

    fn feeds(&self) -> Vec<Arc<Feed>> {
        self.audience.feeds(&self.cache)
    }

    fn lost(&mut self) {
        self.table.lost(Instant::now());
        self.show(&Touched::All);
    }

    /// Shows the lists that a change concerns, and those that nobody has shown yet.
    fn show(&self, touched: &Touched) {
        for feed in self.feeds() {
            if (touched.concerns(&feed.query) || !feed.current().is_known())
                && let Some(snapshot) = self.table.seen(&feed.query, feed.keeps_missing)
            {
                feed.show(snapshot);
            }
        }
    }
}

/// Returns when this connection is gone.
async fn gone(mut link: watch::Receiver<Link>, generation: u64) {
    let other = |link: &Link| !matches!(link, Link::Up(connection) if connection.generation == generation);
    drop(link.wait_for(other).await.map(|_| ()));
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
