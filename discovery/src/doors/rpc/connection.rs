//! One RPC connection: reads calls, answers them, and is never waited for longer than it deserves.
//!
//! Not tarpc's own server channel, whose documented use spawns a task per call: lookups are answered inline, so that a burst of
//! calls becomes a burst of answers in one write, and calls that wait are futures of this task.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use roundsman_health::Nudge;
use roundsman_protocol::{
    InstanceId, Namespace,
    wire::{Head, read_request},
};
use tarpc::ServerError;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{codec::Framed, sync::CancellationToken};

use super::{
    answer::{Answered, Caller},
    calls::Calls,
    frame::{Frames, Outgoing},
    greeting::Greeted,
};
use crate::{context::Context, writer::key};

/// Most frames that are answered before they are flushed.
const BURST: usize = 256;
/// How long a client may leave its answers unread.
const STALL: Duration = Duration::from_secs(30);

/// One RPC connection.
pub(super) struct Connection {
    frames: Framed<TcpStream, Frames>,
    caller: Caller,
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
        let Greeted { frames, namespace } = greeted;
        let calls = Calls::new(context.config.max_in_flight);
        let caller = Caller { context, namespace };
        Self { frames, caller, calls, registered: HashSet::new() }
    }

    /// Serves until the client hangs up, breaks a rule, or `stop`. Returns the reason to count, if there is one.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Option<&'static str> {
        let end = loop {
            if let Err(end) = self.turn(stop).await {
                break end;
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

    /// Waits for something to do, does all that is there, and flushes.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<(), End> {
        tokio::select! {
            biased;
            answered = self.calls.next(), if !self.calls.is_empty() => self.answer(answered).await?,
            frame = self.frames.next() => self.take(frame).await?,
            () = stop.cancelled() => return self.drain().await,
        }
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
                None => break,
            }
        }
        self.flush().await
    }

    /// The server stops: answers the calls in flight, reads no more. Watches end by themselves.
    async fn drain(&mut self) -> Result<(), End> {
        self.calls.stop();
        while !self.calls.is_empty() {
            let answered = self.calls.next().await;
            self.answer(answered).await?;
        }
        self.flush().await?;
        if let Err(error) = self.frames.close().await {
            tracing::debug!(%error, "a client was gone before the server was");
        }
        Err(End::Orderly)
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
        match self.caller.call(id, request) {
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
        match timeout(STALL, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed("broken")),
            Err(_) => Err(End::Closed("unread")),
        }
    }

    fn namespace(&self) -> &Namespace {
        &self.caller.namespace
    }
}
