//! Calls under way on one connection.

use std::{collections::HashMap, io};

use futures::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use roundsman_protocol::{DiscoveryRequest, DiscoveryResponse};
use tarpc::ServerError;

use super::Shared;
use crate::link::Connection;

/// Calls at a time. A client of this library sends no more.
const MOST: usize = Connection::MOST_CALLS;

/// What a call comes to.
pub(crate) type Answered = Result<DiscoveryResponse, ServerError>;

/// Calls that wait for their answers. Dropped, none is answered any more.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    running: FuturesUnordered<Abortable<BoxFuture<'static, (u64, Answered)>>>,
    handles: HashMap<u64, AbortHandle>,
}

// === impl Calls ===

impl Calls {
    /// Begins a call.
    pub(crate) fn begin(&mut self, id: u64, memory: &Shared, request: DiscoveryRequest) {
        if self.handles.len() >= MOST {
            let detail = format!("more than {MOST} calls at a time on one connection");
            return self.answer(id, Err(ServerError::new(io::ErrorKind::QuotaExceeded, detail)));
        }
        let memory = Shared::clone(memory);
        self.push(id, async move { (id, memory.answer(request).await) }.boxed());
    }

    /// Notes an answer that is there already.
    pub(crate) fn answer(&mut self, id: u64, answered: Answered) {
        self.push(id, futures::future::ready((id, answered)).boxed());
    }

    /// The caller no longer waits.
    pub(crate) fn cancel(&mut self, id: u64) {
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort();
        }
    }

    /// The next answer. Pending for ever while there are no calls. Cancel safe.
    pub(crate) async fn next(&mut self) -> (u64, Answered) {
        loop {
            match self.running.next().await {
                Some(Ok((id, answered))) => {
                    self.handles.remove(&id);
                    return (id, answered);
                }
                // Cancelled.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn push(&mut self, id: u64, call: BoxFuture<'static, (u64, Answered)>) {
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.insert(id, handle);
        self.running.push(Abortable::new(call, registration));
    }
}
