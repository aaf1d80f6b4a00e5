//! Whom to call when nobody else is there: instances that drain still serve.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use roundsman_protocol::{Instance, InstanceStatus, Query, Scope};
use tokio::{sync::watch, time::Instant};

use crate::{call::call, link::Link};

/// An answer serves all who ask within this time.
const FRESH: Duration = Duration::from_millis(250);
/// How long a server has to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Those of a service's instances that are about to leave, as the servers know them.
pub(super) struct Leaving {
    query: Query,
    link: watch::Receiver<Link>,
    /// The last question, and when it was asked: however many calls wait, one asks.
    asked: Mutex<Option<(Instant, Question)>>,
}

type Question = Shared<BoxFuture<'static, Arc<[Arc<Instance>]>>>;

// === impl Leaving ===

impl Leaving {
    /// `query` is about those who are handed out.
    pub(super) fn new(query: Query, link: watch::Receiver<Link>) -> Self {
        // A subset is one of those; of the others there are few, if any.
        let query = Query { subset: None, ..query }.scope(Scope::Registered);
        Self { query, link, asked: Mutex::default() }
    }

    /// Who drains at the moment; nobody, if no server says so.
    pub(super) fn ask(&self) -> Question {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = asked.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < FRESH);
        if let Some((_, question)) = last {
            return question.clone();
        }
        let question = draining(self.link.clone(), self.query.clone()).boxed().shared();
        *asked = Some((now, question.clone()));
        question
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").field("query", &self.query).finish_non_exhaustive()
    }
}

async fn draining(link: watch::Receiver<Link>, query: Query) -> Arc<[Arc<Instance>]> {
    let listed = call(&link, TIMEOUT, |connection, context| {
        let query = query.clone();
        async move { connection.list(context, query).await }
    });
    match listed.await {
        Ok(listed) => listed.into_iter().filter(|instance| instance.status == InstanceStatus::Draining).collect(),
        Err(error) => {
            tracing::debug!(%error, "nobody knows who drains");
            Arc::from([])
        }
    }
}
