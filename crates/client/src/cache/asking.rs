//! One question about what changed, and all pages of its answer.

use std::{collections::HashSet, sync::Arc, time::Duration};

use roundsman_protocol::{
    Cursor, Digest, DiscoveryError, Instance, InstanceId, Known, Query, Update, limits, rpc::Wait,
};
use tokio::sync::watch;

use crate::{
    call::{call, once},
    error::Error,
    link::{Connection, Link},
};

/// Most pages of one answer, of 256 KiB each. A server that goes on for ever must not fill our memory.
const MOST_PAGES: usize = 4_096;

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
}

/// The whole answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) update: Update,
    /// The connection that may be asked for what comes next by the cursor alone. `None` after an answer of several pages: a
    /// busy server's log may not reach back to the first of them, and then what we know by now spares us the rest.
    pub(crate) by: Option<u64>,
}

/// Asks, by whichever connection there is, and waits for all pages, for each as long as for any call.
///
/// # Errors
/// Those of every call. When a page fails, what came before it is dropped: nobody is shown half of a snapshot.
pub(crate) async fn ask(link: &watch::Receiver<Link>, timeout: Duration, question: Question) -> Result<Told, Error> {
    // The server ends the wait; the deadline is only for a server that does not.
    let (connection, mut update) = call(link, question.wait.saturating_add(timeout), |connection, context| {
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
    Ok(Told { update, by })
}

// === impl Question ===

impl Question {
    /// A question by somebody who knows nothing.
    pub(crate) fn new(query: Query, after: Option<Cursor>, wait: Duration, told_by: Option<u64>) -> Self {
        Self { query, after, wait, known: None, told_by }
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
