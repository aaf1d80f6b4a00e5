//! One RPC connection: reads calls, answers them, and is never waited for longer than it deserves.
//!
//! Not tarpc's own server channel, whose documented use spawns a task per call: lookups are answered inline, so that a
//! burst of calls becomes a burst of answers in one write, and calls that wait are futures of this task.

use std::{io, net::SocketAddr, ops::Range, pin::Pin, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    End, RpcDoor,
    answer::{Answered, Desk},
    calls::Calls,
    frame::{Incoming, NO_ID, Outgoing},
    greeting::Greeted,
    wire::{Event, Wire},
};
use crate::{
    api::Api,
    principal::{Door, Principal},
};

/// Most frames that are answered before others get a turn.
const BURST: usize = 256;
/// How long the calls of a client that sends no more may take.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Frames longer than this are read where nobody else waits for it.
const LONG: usize = 4 * 1_024;

/// One RPC connection.
pub(super) struct Connection<'a> {
    door: &'a RpcDoor,
    wire: Wire,
    desk: Desk,
    calls: Calls,
}

impl<'a> Connection<'a> {
    pub(super) fn new(greeted: Greeted, peer: Option<SocketAddr>, door: &'a RpcDoor) -> Self {
        let Greeted { wire, namespace, service } = greeted;
        let principal = Principal::new(Door::Rpc, peer, service);
        let api = Api::new(Arc::clone(&door.context), namespace, principal);
        let calls = Calls::new(door.context.config.max_in_flight);
        let desk = Desk::new(api, wire.dialect(), Arc::clone(&door.encodings));
        Self { door, wire, desk, calls }
    }

    /// Serves until the client hangs up, breaks a rule, or `stop`. Returns the reason to count, if there is one.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Option<&'static str> {
        // One future for all turns: making one for each would lock what all connections share, twice per call.
        let mut stopped = std::pin::pin!(stop.cancelled());
        let end = loop {
            if let Err(end) = self.turn(stopped.as_mut(), stop).await {
                break end;
            }
        };
        self.desk.api.close();
        match end {
            End::Orderly => None,
            End::HungUp => {
                // It may have closed only its own half, and wait for what it asked for.
                if timeout(LAST_ANSWERS, self.drain()).await.is_err() {
                    tracing::debug!("a client that hung up had calls in flight for long");
                }
                // What was registered meanwhile.
                self.desk.api.close();
                None
            }
            End::Closed(reason) => Some(reason),
            End::Farewell(reason, sentence) => {
                let last = Outgoing::refusal(NO_ID, io::ErrorKind::InvalidData, sentence);
                self.wire.farewell(&last).await;
                Some(reason)
            }
        }
    }

    /// Does what is there to do, and then waits for more.
    async fn turn(
        &mut self,
        stopped: Pin<&mut WaitForCancellationFuture<'_>>,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        // First: calls may have come in together with the greeting.
        self.work(stop).await?;
        let Self { wire, calls, .. } = self;
        let room = wire.has_room();
        tokio::select! {
            biased;
            answered = calls.next(), if room && !calls.is_empty() => self.answer(answered),
            event = wire.event(room) => match event? {
                Event::Read | Event::Written => Ok(()),
                Event::Ended => Err(End::HungUp),
            },
            () = stopped => Err(self.drain().await),
        }
    }

    /// Does all that can be done without waiting, and writes as much as the socket takes.
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), End> {
        while self.burst().await? {
            self.wire.flush_now().await?;
            if !self.wire.has_room() {
                // The client leaves its answers unread: what else it asked for waits until it reads.
                return Ok(());
            }
            // A client that never pauses must keep neither others from being served nor the server from stopping.
            tokio::task::yield_now().await;
            if stop.is_cancelled() {
                return Err(self.drain().await);
            }
        }
        self.wire.flush_now().await
    }

    /// Does what can be done without waiting. Says whether more may be left to do.
    async fn burst(&mut self) -> Result<bool, End> {
        for _ in 0..BURST {
            if !self.wire.has_room() {
                return Ok(true);
            }
            if !self.calls.is_empty()
                && let Some(answered) = self.calls.next().now_or_never()
            {
                self.answer(answered)?;
                continue;
            }
            let Some(frame) = self.wire.next_frame()? else { return Ok(false) };
            self.take(frame).await?;
        }
        Ok(true)
    }

    /// The server stops: answers the calls in flight, reads no more. Watches end by themselves.
    async fn drain(&mut self) -> End {
        self.calls.stop();
        while !self.calls.is_empty() {
            let answered = self.calls.next().await;
            if let Err(end) = self.answer(answered) {
                return end;
            }
            if let Err(end) = self.wire.flush().await {
                return end;
            }
        }
        match self.wire.finish().await {
            Ok(()) => End::Orderly,
            Err(end) => end,
        }
    }

    async fn take(&mut self, frame: Range<usize>) -> Result<(), End> {
        let (dialect, end) = (self.wire.dialect(), frame.end);
        let incoming = if frame.len() > LONG {
            let bytes = self.wire.bytes(frame).to_vec();
            let read = self.door.encodings.offload().run(move || Incoming::read(dialect, &bytes)).await;
            read.map_err(|error| End::Farewell("busy", error.to_string()))?
        } else {
            Incoming::read(dialect, self.wire.bytes(frame))
        };
        self.wire.frame_done(end);
        match incoming {
            Incoming::Call { id, deadline, request } => match self.desk.call(id, request) {
                Answered::Now(outgoing) => self.wire.put(&outgoing),
                Answered::Later(later) if self.calls.is_full(later.kind) => self.too_many_calls(id),
                Answered::Later(later) => {
                    self.calls.add(id, deadline, later);
                    Ok(())
                }
            },
            Incoming::Cancel { id } => {
                self.calls.cancel(id);
                Ok(())
            }
            Incoming::Unreadable { id, error } => self.refuse(id, "unreadable-request", error),
            Incoming::Garbage { error } => Err(End::Farewell("garbage", format!("this is no message: {error}"))),
        }
    }

    fn too_many_calls(&mut self, id: u64) -> Result<(), End> {
        let limit = self.door.context.config.max_in_flight;
        let rule = format!("the server's limit --max-in-flight ({limit}) of calls on one connection is reached");
        self.refuse(id, "max-in-flight", rule)
    }

    fn refuse(&mut self, id: u64, reason: &'static str, sentence: String) -> Result<(), End> {
        self.desk.api.caller().refused_as(reason);
        self.wire.put(&Outgoing::refusal(id, io::ErrorKind::InvalidInput, sentence))
    }

    fn answer(&mut self, answered: Option<Outgoing>) -> Result<(), End> {
        answered.map_or(Ok(()), |outgoing| self.wire.put(&outgoing))
    }
}
