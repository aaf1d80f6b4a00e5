//! Following what changes.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};
use roundsman_protocol::{Cursor, Instance, Query, Removed, Update};
use tokio::time::sleep;

use crate::{
    backoff::Backoff,
    cache::{Difference, Known, Question, Told, ask},
    discovery::Discovery,
    error::Error,
    link::Line,
};

/// How long one question to the server stays open before it is asked anew.
const WAIT: Duration = Duration::from_secs(30);
/// First and longest pause after a refusal that may pass.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a [`Watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything that the query matches at this moment; what was known before counts no more. The first event
    /// is one. Another follows when the server cannot tell what changed in between, and something did: it has lost its
    /// memory, or is of a release that knows no digests. When a server restarts with its store, or another one takes over that
    /// knows the same, there is no event at all; when little is different, only that is told.
    Snapshot(Vec<Arc<Instance>>),
    /// An instance is new among those that match, or something about it changed.
    Changed(Arc<Instance>),
    /// An instance no longer matches.
    Removed(Removed),
}

/// A stream of the changes to what a query matches; made by [`Discovery::watch`].
///
/// It survives lost connections and restarted servers: it picks up where it was, or starts over with an
/// [`Event::Snapshot`]. It has no task and no queue of its own: a slow reader gets fewer, larger updates, and
/// dropping it ends it. One client can have as many as it likes; of more than 900 that wait at a time the rest take turns, and
/// may be told up to half a minute later. It ends by itself only when the [`Discovery`] is closed, or when the server refuses the query
/// for good; [`Watch::failure`] tells which.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use roundsman::{Event, Query};
///
/// let mut changes = discovery.watch(Query::service("product".try_into()?))?;
/// while let Some(event) = changes.next().await {
///     match event {
///         Event::Snapshot(instances) => println!("{} to choose from", instances.len()),
///         Event::Changed(instance) => println!("{} is {}", instance.id, instance.status),
///         Event::Removed(removed) => println!("{} is gone: {}", removed.id, removed.reason),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is told to whoever does not ask for the next event"]
pub struct Watch {
    updates: BoxStream<'static, Result<VecDeque<Event>, Error>>,
    /// What the last update had, not yet handed on.
    waiting: VecDeque<Event>,
    failure: Option<Error>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(discovery: &Discovery, query: Query) -> Self {
        let backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let discovery = discovery.clone();
        let poller = Poller { discovery, query, known: None, cursor: None, told_by: None, backoff, early: 0 };
        let updates = stream::unfold(poller, |mut poller| async move { Some((poller.next().await, poller)) }).boxed();
        Self { updates, waiting: VecDeque::new(), failure: None }
    }

    /// The next event, or `None` when there will be none any more. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// Why the stream ended.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }
}

impl Stream for Watch {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.failure.is_some() {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.updates.poll_next_unpin(cx)) {
                Some(Ok(events)) => self.waiting = events,
                Some(Err(error)) => self.failure = Some(error),
                None => self.failure = Some(Error::Closed),
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("waiting", &self.waiting.len()).field("failure", &self.failure).finish()
    }
}

/// Asks the server again and again.
struct Poller {
    discovery: Discovery,
    query: Query,
    /// What was told so far; nothing before the first answer.
    known: Option<Known>,
    cursor: Option<Cursor>,
    /// The connection by which the cursor came.
    told_by: Option<u64>,
    backoff: Backoff,
    /// So many answers in a row came too soon to tell anything.
    early: u32,
}

// === impl Poller ===

impl Poller {
    /// The next events, or the reason why there will be none.
    async fn next(&mut self) -> Result<VecDeque<Event>, Error> {
        loop {
            match ask(&self.discovery.inner.link, self.discovery.inner.timeout, self.question()).await {
                Ok(Told { update, by, early }) => {
                    self.early = if early { self.early.saturating_add(1) } else { 0 };
                    if !early {
                        self.backoff.reset();
                    }
                    (self.cursor, self.told_by) = (Some(update.cursor), by);
                    let events = self.take_in(update);
                    if !events.is_empty() {
                        return Ok(events);
                    }
                    if self.early > 1 {
                        sleep(self.backoff.next()).await;
                    }
                }
                // All have waited for a connection already.
                Err(Error::Unreachable { .. } | Error::Refused { .. } | Error::Deadline { .. }) => self.told_by = None,
                Err(error) if error.is_retryable() || matches!(error, Error::Failed { .. }) => {
                    self.told_by = None;
                    tracing::warn!(%error, "a watch was refused; trying again");
                    sleep(self.backoff.next()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn question(&self) -> Question {
        let (query, after) = (self.query.clone(), self.cursor);
        let known = self.known.as_ref();
        let ids = || known.map(|known| known.ids().cloned().collect()).unwrap_or_default();
        let digest = || known.map(|known| known.digest().clone());
        Question::new(Line::Watch, query, after, WAIT, self.told_by).knowing(ids, digest)
    }

    /// What an update changes.
    fn take_in(&mut self, update: Update) -> VecDeque<Event> {
        if update.snapshot || self.known.is_none() {
            let first = self.known.is_none();
            let known = self.known.get_or_insert_default();
            let changed = known.replace(update.instances.clone());
            return (first || changed).then_some(Event::Snapshot(update.instances)).into_iter().collect();
        }
        let Some(known) = &mut self.known else { return VecDeque::new() };
        let Difference { removed, changed } = known.apply(update);
        // Removals first: an instance that gave way to another is gone before the other is there.
        removed.into_iter().map(Event::Removed).chain(changed.into_iter().map(Event::Changed)).collect()
    }
}
