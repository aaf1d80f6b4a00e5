//! The RPC door: accepts, greets, and serves each connection in a task of its own.

mod answer;
mod calls;
mod connection;
mod encoded;
mod frame;
mod greeting;
mod outbox;
mod twins;
mod watch;
mod wire;

use std::{sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::encoded::Encodings;
use crate::context::Context;

/// How long to wait after a failed accept: out of file descriptors does not heal by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may be idle before the kernel asks whether the other end is still there, and how often it asks.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

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

/// Serves until `stop`, then waits until every connection has answered what it was asked, at most for the drain deadline.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(permit) = Arc::clone(&context.permits).try_acquire_owned() else {
            context.meters.closed("max-connections");
            // Answered in the task of its own: the refusal is a courtesy that must not hold up the next one. It is bounded by time.
            connections.spawn(greeting::turn_away(stream, context.config.max_connections));
            continue;
        };
        let (context, stop, abort) = (Arc::clone(&context), stop.clone(), abort.clone());
        connections.spawn(async move {
            abort.run_until_cancelled(converse(stream, context, stop)).await;
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(context.config.drain_deadline, connections.wait()).await.is_err() {
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

async fn converse(stream: TcpStream, context: Arc<Context>, stop: CancellationToken) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "cannot set the options of an RPC connection");
    }
    let greeted = match stop.run_until_cancelled(greeting::greet(stream, &context)).await {
        Some(Ok(greeted)) => greeted,
        Some(Err(reason)) => return context.meters.closed(reason),
        None => return,
    };
    let reason = connection::Connection::new(greeted, Arc::clone(&context)).run(&stop).await;
    if let Some(reason) = reason {
        context.meters.closed(reason);
    }
}

/// Answers leave at once; and a client whose machine or network is gone without a word is noticed within a minute, where an
/// idle connection would otherwise stay open for ever.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
