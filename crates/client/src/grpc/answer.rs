//! What comes back: a stream that is watched to its end, or the status of a call that has none.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use roundsman_protocol::{Instance, Trouble};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::wire::trouble;
use crate::{
    balance::Verdict,
    http::{AnyBody, Error, Failure},
};

/// The messages of an answer. How they end counts for the instance.
pub(super) struct Answer {
    body: AnyBody,
    verdict: Option<Verdict>,
    instance: Arc<Instance>,
    /// When it ends at the latest, if its request said so.
    until: Option<Pin<Box<Sleep>>>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(
        body: AnyBody,
        verdict: Option<Verdict>,
        instance: Arc<Instance>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { body, verdict, instance, until: deadline.map(|deadline| Box::pin(sleep_until(deadline))) }
    }

    /// It turned out to be a failure.
    fn refuse(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            verdict.rejected();
        }
    }

    fn said(&self, detail: &str) -> String {
        let Instance { id, name, address, .. } = &*self.instance;
        format!("{id} of `{name}` at {address}: {detail}")
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(Status::deadline_exceeded(self.said("the time of the call was up")))));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if frame.trailers_ref().and_then(trouble).is_some() {
                    self.refuse();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let failure = Failure::broken(&*error);
                if failure.counts() {
                    self.refuse();
                }
                Poll::Ready(Some(Err(Status::unavailable(self.said(&failure.detail)))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a call without an answer comes to, in gRPC's words. Nobody who could be asked is a passing trouble, as there.
pub(super) fn status_of(error: Error) -> Status {
    let late = error.tries().last().is_some_and(|tried| tried.trouble == Trouble::Timeout && tried.maybe_sent);
    let said = error.to_string();
    let mut status = match &error {
        Error::Deadline { .. } => Status::deadline_exceeded(said),
        Error::Failed { .. } if late => Status::deadline_exceeded(said),
        Error::Invalid(_) | Error::Discovery(crate::Error::Invalid(_)) => Status::invalid_argument(said),
        Error::Discovery(crate::Error::Closed) => Status::cancelled(said),
        _ => Status::unavailable(said),
    };
    status.set_source(Arc::new(error));
    status
}
