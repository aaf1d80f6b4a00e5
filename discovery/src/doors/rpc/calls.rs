//! The calls of one connection that cannot be answered at once.

use std::{collections::HashMap, time::Duration};

use futures::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use tokio_util::sync::CancellationToken;

use super::frame::Outgoing;

/// The longest that a call is worked on, whatever its deadline says.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

/// The calls of one connection that wait.
pub(super) struct Calls {
    waiting: FuturesUnordered<BoxFuture<'static, (u64, Kind, Option<Outgoing>)>>,
    cancels: HashMap<u64, AbortHandle>,
    /// How many there are of each kind.
    counts: [usize; 2],
    limit: usize,
    stop: CancellationToken,
}

/// What a call waits for. Each kind has the whole limit for itself: watches wait for hours and occupy nobody, and must
/// not keep a connection from renewing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody is at work on it.
    Work,
    /// The same, and it is done whether or not the caller waits for the answer.
    Change,
    /// It waits for something to happen.
    Watch,
}

/// A call that waits; given the token that asks it to end soon.
pub(super) struct Later {
    pub(super) kind: Kind,
    pub(super) call: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, Outgoing> + Send>,
}

// === impl Calls ===

impl Calls {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: FuturesUnordered::new(),
            cancels: HashMap::new(),
            counts: [0, 0],
            limit,
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many calls of this kind there are.
    fn count(&self, kind: Kind) -> usize {
        let [work, watches] = self.counts;
        match kind {
            Kind::Work | Kind::Change => work,
            Kind::Watch => watches,
        }
    }

    /// Whether there is no room for one more of this kind.
    pub(super) fn is_full(&self, kind: Kind) -> bool {
        self.count(kind) >= self.limit
    }

    /// Begins a call. After its deadline nobody waits for an answer any more and none is sent, as tarpc has it.
    pub(super) fn add(&mut self, id: u64, deadline: Duration, Later { kind, call }: Later) {
        let (cancel, registration) = AbortHandle::new_pair();
        let mut call = call(self.stop.clone());
        let call = async move {
            let waited =
                tokio::time::timeout(deadline.min(MAX_DEADLINE), Abortable::new(&mut call, registration)).await;
            let done = match (waited.ok().and_then(Result::ok), kind) {
                (Some(done), _) => Some(done),
                (None, Kind::Change) => {
                    // What it registers belongs to this connection all the same.
                    drop(call.await);
                    None
                }
                (None, Kind::Work | Kind::Watch) => None,
            };
            (id, kind, done)
        };
        self.waiting.push(call.boxed());
        self.cancels.insert(id, cancel);
        *self.counter(kind) += 1;
    }

    /// The caller no longer waits for this call.
    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(cancel) = self.cancels.remove(&id) {
            cancel.abort();
        }
    }

    /// Asks those that would wait long to end now.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// The next call that is done; `None` when it has no answer. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        let (id, kind, done) = self.waiting.next().await?;
        self.cancels.remove(&id);
        *self.counter(kind) -= 1;
        done
    }

    fn counter(&mut self, kind: Kind) -> &mut usize {
        let [work, watches] = &mut self.counts;
        match kind {
            Kind::Work | Kind::Change => work,
            Kind::Watch => watches,
        }
    }
}
