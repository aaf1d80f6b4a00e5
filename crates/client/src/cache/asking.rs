//! One question about what changed, and all pages of its answer.

use std::{collections::HashSet, sync::Arc, time::Duration};

use roundsman_protocol::{
    Cursor, Digest, DiscoveryError, Instance, InstanceId, Known, Query, Update, limits, rpc::Wait,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    call::{call_in, once},
    error::Error,
    link::{Connection, Line, Link},
};

/// Most pages of one answer, of 256 KiB each. A server that goes on for ever must not fill our memory.
pub(crate) const MOST_PAGES: usize = 4_096;
/// A server that has nothing to tell waits for longer than this, if it was asked to.
const EARLY: Duration = Duration::from_secs(1);

/// A question about what changed.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) query: Query,
    pub(crate) after: Option<Cursor>,
    pub(crate) wait: Duration,
    /// What the server is told if it may not know the cursor.
    pub(crate) known: Option<Known>,
    /// The connection by which the cursor came: there it is known, as long as the server's log reaches.
    pub(crate) told_by: Option<u64>,
    /// Where it waits for its turn, once it waits for news.
    pub(crate) line: Line,
}

/// The whole answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) update: Update,
    /// The connection that may be asked for what comes next by the cursor alone. `None` after an answer of several pages: a
    /// busy server's log may not reach back to the first of them, and then what we know by now spares us the rest.
    pub(crate) by: Option<u64>,
    /// Whether it says "nothing new" though the server was asked to wait for news, and did not. Once in a while it has a
    /// reason. Who is answered so again and again pauses, or both sides would be busy with nothing.
    pub(crate) early: bool,
}

/// Asks, by whichever connection there is, and waits for all pages, for each as long as for any call.
///
/// # Errors
/// Those of every call. When a page fails, what came before it is dropped: nobody is shown half of a snapshot.
pub(crate) async fn ask(link: &watch::Receiver<Link>, timeout: Duration, question: Question) -> Result<Told, Error> {
    let (began, wait) = (Instant::now(), question.wait);
    // The first answer comes at once.
    let line = if question.after.is_none() || wait.is_zero() { Line::Work } else { question.line };
    // The server ends the wait; the deadline is only for a server that does not.
    let (connection, mut update) = call_in(line, link, wait.saturating_add(timeout), |connection, context| {
        let (query, after, wait) = (question.query.clone(), question.after, Wait(question.wait));
        let known = question.known.clone().filter(|_| !question.is_known_to(&connection));
        async move {
            connection.note_subset(&query);
            let update = connection.client.watch(context, query, after, wait, known, None).await?;
            Ok(update.map(|update| (connection, update)))
        }
    })
    .await?;
    let mut pages = 1;
    while let Some(page) = update.next.take() {
        pages += 1;
        if pages > MOST_PAGES {
            return Err(failed(&connection, &format!("its answer has more than {MOST_PAGES} pages")));
        }
        // The bookmark says the rest.
        let query = question.query.clone();
        let more = once(&connection, timeout, |client, context| async move {
            client.watch(context, query, None, Wait(Duration::ZERO), None, Some(page)).await
        });
        let more = more.await.map_err(|error| begin_anew(&connection, error))?;
        // The first cursor stays: what changed since is told to the next question.
        update.instances.extend(more.instances);
        update.removed.extend(more.removed);
        update.next = more.next;
    }
    if pages > 1 {
        update.instances = last_of_each(update.instances);
    }
    let by = (pages == 1).then_some(connection.generation);
    let early = update.is_unchanged() && wait > EARLY && began.elapsed() < EARLY;
    Ok(Told { update, by, early })
}

// === impl Question ===

impl Question {
    /// A question by somebody who knows nothing.
    pub(crate) fn new(line: Line, query: Query, after: Option<Cursor>, wait: Duration, told_by: Option<u64>) -> Self {
        Self { query, after, wait, known: None, told_by, line }
    }

    /// By somebody who follows a subset, and has these ids, or knows what has this digest.
    pub(crate) fn knowing(
        mut self,
        ids: impl FnOnce() -> Vec<InstanceId>,
        digest: impl FnOnce() -> Option<Digest>,
    ) -> Self {
        if self.query.subset.is_none() {
            self.known = digest().map(Known::Digest);
            return self;
        }
        let ids = ids();
        if ids.len() > limits::MAX_KNOWN_IDS {
            // A server that knows no subsets told of all. Which of them to keep is not for us to say.
            self.after = None;
        } else {
            self.known = Some(Known::Ids(ids));
        }
        self
    }

    /// Whoever has a subset says each time whom it has: the server may have given some to others.
    fn is_known_to(&self, connection: &Connection) -> bool {
        self.query.subset.is_none() && self.after.is_some() && self.told_by == Some(connection.generation)
    }
}

/// A page that is refused says nothing about the question: it is asked again from the beginning.
fn begin_anew(connection: &Connection, error: Error) -> Error {
    match error {
        Error::Invalid(_) | Error::Discovery(DiscoveryError::NoSuchService { .. }) => {
            failed(connection, &format!("a page of its answer was refused: {error}"))
        }
        error => error,
    }
}

fn failed(connection: &Connection, detail: &str) -> Error {
    Error::Failed { server: Arc::clone(&connection.server), detail: detail.to_owned() }
}

/// Each instance once: one that changed its service between two pages may be on both. The later page knows better.
pub(crate) fn last_of_each(mut instances: Vec<Arc<Instance>>) -> Vec<Arc<Instance>> {
    let mut seen = HashSet::with_capacity(instances.len());
    instances.reverse();
    instances.retain(|instance| seen.insert(instance.id.clone()));
    instances.reverse();
    instances
}
