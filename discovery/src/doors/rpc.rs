//! The RPC door: accepts, greets, and serves each connection in a task of its own.

mod answer;
mod calls;
mod connection;
mod encoded;
mod frame;
mod greeting;
mod outbox;
#[cfg(test)]
mod paging;
mod subset;
mod watch;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::encoded::Encodings;
use crate::{
    context::Context,
    metrics::{Metrics, Reasons, whole},
};

/// How long to wait after a failed accept: out of file descriptors does not heal by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may be idle before the kernel asks whether the other end is still there, and how often it asks.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct RpcDoor {
    context: Arc<Context>,
    /// Long answers.
    encodings: Arc<Encodings>,
    meters: Meters,
}

/// What the door counts.
#[derive(Debug)]
pub(crate) struct Meters {
    closed: Reasons,
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The server stops, and all is answered.
    Orderly,
    /// The client sends no more.
    HungUp,
    /// For the reason that metrics name; the client cannot be told.
    Closed(&'static str),
    /// For the reason that metrics name, after a last sentence to the client.
    Farewell(&'static str, String),
}

// === impl Meters ===

impl Meters {
    /// `permits`: one for each connection that there may be, of which there are `limit`.
    pub(crate) fn new(permits: &Arc<Semaphore>, limit: usize, metrics: &mut Metrics) -> Self {
        let permits = Arc::clone(permits);
        let open = move || whole(limit.saturating_sub(permits.available_permits()));
        metrics.reading("rpc_connections", "RPC connections.", open);
        Self { closed: metrics.reasons("rpc_closed", "RPC connections closed by the server, by reason") }
    }
}

// === impl RpcDoor ===

impl RpcDoor {
    pub(crate) fn new(context: Arc<Context>, meters: Meters) -> Arc<Self> {
        let encodings = Arc::new(Encodings::new(context.offload.clone(), Arc::clone(&context.budget)));
        Arc::new(Self { context, encodings, meters })
    }

    /// Gives back what nobody needs any more.
    pub(crate) fn tidy(&self) {
        self.encodings.tidy();
        self.context.moments.tidy();
    }

    async fn converse(&self, stream: TcpStream, stop: CancellationToken) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "cannot set the options of an RPC connection");
        }
        let peer: Option<SocketAddr> = stream.peer_addr().ok();
        let greeted = match stop.run_until_cancelled(greeting::greet(stream, &self.context)).await {
            Some(Ok(greeted)) => greeted,
            Some(Err(reason)) => return self.meters.closed.count(reason),
            None => return,
        };
        let reason = connection::Connection::new(greeted, peer, self).run(&stop).await;
        if let Some(reason) = reason {
            self.meters.closed.count(reason);
        }
    }
}

/// Serves until `stop`, then waits until every connection has answered what it was asked, at most for the drain deadline.
pub(crate) async fn serve(listener: TcpListener, door: Arc<RpcDoor>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let config = &door.context.config;
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(permit) = Arc::clone(&door.context.permits).try_acquire_owned() else {
            door.meters.closed.count("max-connections");
            // Answered in the task of its own: the refusal is a courtesy that must not hold up the next one. It is bounded by time.
            connections.spawn(greeting::turn_away(stream, config.max_connections));
            continue;
        };
        let (door, stop, abort) = (Arc::clone(&door), stop.clone(), abort.clone());
        connections.spawn(async move {
            abort.run_until_cancelled(door.converse(stream, stop)).await;
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(config.drain_deadline, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing connections with calls still in flight");
        abort.cancel();
        connections.wait().await;
    }
}

/// The next connection, or `None` when the door is to be closed.
async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = stop.run_until_cancelled(listener.accept()).await?;
        match accepted {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an RPC connection");
                stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

/// Answers leave at once; and a client whose machine or network is gone without a word is noticed within a minute, where an
/// idle connection would otherwise stay open for ever.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
