//! One RPC connection: reads calls, answers them, and is never waited for longer than it deserves.
//!
//! Not tarpc's own server channel, whose documented use spawns a task per call: lookups are answered inline, so that a burst of
//! calls becomes a burst of answers in one write, and calls that wait are futures of this task.

use std::{collections::HashSet, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use roundsman_health::Nudge;
use roundsman_protocol::{
    InstanceId, Namespace,
    wire::{Head, read_request},
};
use tarpc::ServerError;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{
    codec::Framed,
    sync::{CancellationToken, WaitForCancellationFuture},
};

use super::{
    answer::{Answered, Caller},
    calls::Calls,
    frame::{Frames, Outgoing},
    greeting::Greeted,
};
use crate::{context::Context, edges::Tracker, writer::key};

/// Most frames that are answered before they are flushed.
const BURST: usize = 256;
/// How long a client may leave its answers unread.
const STALL: Duration = Duration::from_secs(30);

/// One RPC connection.
pub(super) struct Connection {
    frames: Framed<TcpStream, Frames>,
    caller: Caller,
    /// Counts what is asked for, when the caller said who it is.
    tracker: Option<Tracker>,
    calls: Calls,
    /// What was registered here and not deregistered: when the connection breaks, they are visited at once.
    registered: HashSet<InstanceId>,
}

/// Why a connection ends.
enum End {
    /// The client hung up, or the server stops and all is answered.
    Orderly,
    /// For the reason that metrics name.
    Closed(&'static str),
}

impl Connection {
    pub(super) fn new(greeted: Greeted, context: Arc<Context>) -> Self {
        let Greeted { frames, namespace, service } = greeted;
        let tracker = service.map(|service| context.edges.track(namespace.clone(), service));
        let calls = Calls::new(context.config.max_in_flight);
        let caller = Caller { context, namespace };
        Self { frames, caller, tracker, calls, registered: HashSet::new() }
    }

    /// Serves until the client hangs up, breaks a rule, or `stop`. Returns the reason to count, if there is one.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Option<&'static str> {
        // One future for all turns: making one for each would lock what all connections share, twice per call.
        let mut stopped = std::pin::pin!(stop.cancelled());
        let end = loop {
            let busy = match self.turn(stopped.as_mut()).await {
                Ok(busy) => busy,
                Err(end) => break end,
            };
            // A client that never pauses must not keep the server from stopping.
            if busy && stop.is_cancelled() {
                break self.drain().await;
            }
        };
        for id in &self.registered {
            self.caller.context.rounds.nudge(&key(self.namespace(), id.clone()), Nudge::SessionClosed);
        }
        match end {
            End::Orderly => None,
            End::Closed(reason) => Some(reason),
        }
    }

    /// Waits for something to do, does all that is there, and flushes. Says whether there was more than one burst takes.
    async fn turn(&mut self, stopped: Pin<&mut WaitForCancellationFuture<'_>>) -> Result<bool, End> {
        tokio::select! {
            biased;
            answered = self.calls.next(), if !self.calls.is_empty() => self.answer(answered).await?,
            frame = self.frames.next() => self.take(frame).await?,
            () = stopped => return Err(self.drain().await),
        }
        let mut busy = true;
        for _ in 0..BURST {
            let ready = async {
                tokio::select! {
                    biased;
                    answered = self.calls.next(), if !self.calls.is_empty() => Ok(answered),
                    frame = self.frames.next() => Err(frame),
                }
            };
            match ready.now_or_never() {
                Some(Ok(answered)) => self.answer(answered).await?,
                Some(Err(frame)) => self.take(frame).await?,
                None => {
                    busy = false;
                    break;
                }
            }
        }
        self.flush().await.map(|()| busy)
    }

    /// The server stops: answers the calls in flight, reads no more. Watches end by themselves.
    async fn drain(&mut self) -> End {
        self.calls.stop();
        while !self.calls.is_empty() {
            let answered = self.calls.next().await;
            if let Err(end) = self.answer(answered).await {
                return end;
            }
        }
        if let Err(end) = self.flush().await {
            return end;
        }
        if let Err(error) = self.frames.close().await {
            tracing::debug!(%error, "a client was gone before the server was");
        }
        End::Orderly
    }

    async fn take(&mut self, frame: Option<std::io::Result<BytesMut>>) -> Result<(), End> {
        let frame = match frame {
            None => return Err(End::Orderly),
            Some(Ok(frame)) => frame,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(End::Closed("oversized-frame"));
            }
            // A reset: the client was killed or the network cut.
            Some(Err(_)) => return Err(End::Closed("broken")),
        };
        let head = Head::read(self.frames.codec().codec, &frame).map_err(|_| End::Closed("garbage"))?;
        let (id, deadline, body) = match head {
            Head::Request { id, deadline, body } => (id, deadline, body),
            Head::Cancel { id } => {
                self.calls.cancel(id);
                return Ok(());
            }
        };
        let request = match read_request(&body) {
            Ok(request) => request,
            Err(error) => return self.refuse(id, "unreadable-request", error.to_string()).await,
        };
        if self.calls.is_full() {
            let rule = format!(
                "the server's limit --max-in-flight ({}) of calls on one connection is reached",
                self.caller.context.config.max_in_flight
            );
            return self.refuse(id, "max-in-flight", rule).await;
        }
        match self.caller.call(id, request, self.tracker.as_mut()) {
            Answered::Now(outgoing) => self.write(outgoing).await,
            Answered::Later(answer) => {
                self.calls.add(id, deadline, answer);
                Ok(())
            }
        }
    }

    async fn refuse(&mut self, id: u64, reason: &'static str, detail: String) -> Result<(), End> {
        self.caller.context.meters.refused(reason);
        let error = ServerError::new(std::io::ErrorKind::InvalidInput, detail);
        self.write(Outgoing::Answer { id, message: Box::new(Err(error)) }).await
    }

    async fn answer(&mut self, answered: Option<super::calls::Done>) -> Result<(), End> {
        let Some(done) = answered else { return Ok(()) };
        if let Some(id) = done.registered {
            self.registered.insert(id);
        }
        if let Some(id) = done.deregistered {
            self.registered.remove(&id);
        }
        self.write(done.outgoing).await
    }

    /// Queues an answer. The queue is short: a client that does not read is waited for here, and nothing more is read from it.
    async fn write(&mut self, outgoing: Outgoing) -> Result<(), End> {
        Self::in_time(self.frames.feed(outgoing)).await
    }

    async fn flush(&mut self) -> Result<(), End> {
        Self::in_time(SinkExt::<Outgoing>::flush(&mut self.frames)).await
    }

    async fn in_time(written: impl Future<Output = std::io::Result<()>>) -> Result<(), End> {
        let mut written = std::pin::pin!(written);
        // Nearly always there is room, and then no timer is needed.
        let at_once = poll_fn(|cx| Poll::Ready(written.as_mut().poll(cx))).await;
        let result = match at_once {
            Poll::Ready(result) => result,
            Poll::Pending => timeout(STALL, written).await.map_err(|_| End::Closed("unread"))?,
        };
        result.map_err(|_| End::Closed("broken"))
    }

    fn namespace(&self) -> &Namespace {
        &self.caller.namespace
    }
}
