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

use crate::{backoff::Backoff, discovery::Discovery, error::Error};

/// How long one question to the server stays open before it is asked anew.
const WAIT: Duration = Duration::from_secs(30);
/// First and longest pause after a refusal that may pass.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a [`Watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything that the query matches at this moment; what was known before counts no more. The first event
    /// is one. Another follows whenever the changes in between cannot be told: after the server restarted or was
    /// changed for another, or when the watcher was away for too long.
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
/// dropping it ends it. It ends by itself only when the [`Discovery`] is closed, or when the server refuses the query
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
pub struct Watch {
    updates: BoxStream<'static, Result<Update, Error>>,
    /// What the last update had, not yet handed on.
    waiting: VecDeque<Event>,
    failure: Option<Error>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(discovery: &Discovery, query: Query) -> Self {
        let poller =
            Poller { discovery: discovery.clone(), query, cursor: None, backoff: Backoff::new(PAUSES.0, PAUSES.1) };
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
                Some(Ok(update)) => self.waiting = events(update),
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

fn events(update: Update) -> VecDeque<Event> {
    if update.snapshot {
        return [Event::Snapshot(update.instances)].into();
    }
    let changed = update.instances.into_iter().map(Event::Changed);
    // Removals first: an instance that gave way to another is gone before the other is there.
    update.removed.into_iter().map(Event::Removed).chain(changed).collect()
}

/// Asks the server again and again.
struct Poller {
    discovery: Discovery,
    query: Query,
    cursor: Option<Cursor>,
    backoff: Backoff,
}

impl Poller {
    /// The next update with something in it, or the reason why there will be none.
    async fn next(&mut self) -> Result<Update, Error> {
        loop {
            match self.ask().await {
                Ok(update) => {
                    self.backoff.reset();
                    self.cursor = Some(update.cursor);
                    if !update.is_unchanged() {
                        return Ok(update);
                    }
                }
                // Both have waited for a connection already.
                Err(Error::Unreachable { .. } | Error::Refused { .. } | Error::Deadline { .. }) => {}
                Err(error) if error.is_retryable() || matches!(error, Error::Failed { .. }) => {
                    tracing::warn!(%error, "a watch was refused; trying again");
                    sleep(self.backoff.next()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask(&self) -> Result<Update, Error> {
        // The server ends the wait; the deadline is only for a server that does not.
        let deadline = WAIT + self.discovery.inner.timeout;
        self.discovery
            .call(deadline, |connection, context| {
                let (query, cursor) = (self.query.clone(), self.cursor);
                async move { connection.watch(context, query, cursor, WAIT, None).await }
            })
            .await
    }
}
