//! The HTTP door: health, readiness, metrics, status and the graph of who calls whom. It opens
//! before the store is loaded, so that probes of a starting server are answered.
//!
//! Nobody can shut it for others: whoever sends slowly, or does not read, is cut off after a while,
//! and gives way at once when the door is full. For whom nobody gives way there is a reserve, where
//! `/health`, `/ready` and `/metrics` are answered.

mod crowd;
mod line;
mod pages;
mod shared_page;
mod words;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use futures::future::{BoxFuture, FutureExt};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    crowd::{Crowd, Seat},
    line::{Line, Patience},
    pages::Pages,
};
use crate::{
    context::Context,
    metrics::{Metrics, Reasons},
};

/// How many connections there may be beside `--max-http-connections`: the reserve, and those that
/// are being closed.
pub(crate) const BESIDE: usize = crowd::RESERVE + LEAVING;
/// How many connections that gave way may still be open for a moment.
const LEAVING: usize = 64;
/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests in flight may take once the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// What the kernel keeps of an answer that the client has not read. Small, so that a slow reader is
/// seen to progress.
const SEND_BUFFER: usize = 64 * 1_024;
/// What hyper keeps of requests unread: the head of one must fit.
const READ_BUFFER: usize = 16 * 1_024;

/// What the door counts.
#[derive(Debug)]
pub(crate) struct Meters {
    connections: Gauge,
    closed: Reasons,
}

/// What all connections share.
struct Door {
    context: Arc<Context>,
    meters: Meters,
    crowd: Arc<Crowd>,
    pages: TowerToHyperService<axum::Router>,
    stop: CancellationToken,
    abort: CancellationToken,
}

// === impl Meters ===

impl Meters {
    pub(crate) fn new(metrics: &mut Metrics) -> Self {
        let connections = metrics.gauge("http_connections", "HTTP connections");
        Self { connections, closed: metrics.reasons("http_closed", "HTTP connections closed by the server, by reason") }
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>, meters: Meters, stop: CancellationToken) {
    let limit = context.config.max_http_connections;
    let crowd = Crowd::new(limit, meters.connections.clone());
    let pages = TowerToHyperService::new(Pages::new(Arc::clone(&context)).router());
    let abort = CancellationToken::new();
    let door = Arc::new(Door { context, meters, crowd, pages, stop, abort });
    // The crowd sees to the limits; these keep it from letting go of connections faster than they
    // close.
    let permits = Arc::new(Semaphore::new(limit + BESIDE));
    let connections = TaskTracker::new();
    while let Some((stream, permit)) = accept(&listener, &permits, &door.stop).await {
        let Some(seat) = door.crowd.admit() else {
            door.meters.closed.count("max-http-connections");
            line::last_words(&stream, words::FULL);
            continue;
        };
        let door = Arc::clone(&door);
        connections.spawn(async move {
            if let Some(reason) = door.converse(stream, Arc::new(seat)).await {
                door.meters.closed.count(reason);
            }
            drop(permit);
        });
    }
    connections.close();
    if timeout(FAREWELL, connections.wait()).await.is_err() {
        tracing::debug!(connections = connections.len(), "HTTP connections cut off");
        door.abort.cancel();
        connections.wait().await;
    }
}

/// The next connection, or `None` when the door is to be closed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = stop.run_until_cancelled(Arc::clone(permits).acquire_owned()).await?.ok()?;
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => return Some((stream, permit)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

impl Door {
    /// Serves one connection. Returns why the server closed it, if it was the server.
    async fn converse(self: &Arc<Self>, stream: TcpStream, seat: Arc<Seat>) -> Option<&'static str> {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "cannot set the options of an HTTP connection");
        }
        let patience = if seat.is_guest() { Patience::GUEST } else { Patience::CALLER };
        let line = TokioIo::new(Line::new(stream, Arc::clone(&seat), patience));
        let mut http = http1::Builder::new();
        // The line has timeouts of its own. A client that is done sending is answered all the same.
        http.header_read_timeout(None).half_close(true).max_buf_size(READ_BUFFER).keep_alive(!seat.is_guest());
        let mut connection = http.serve_connection(line, Reception { door: Arc::clone(self), seat: Arc::clone(&seat) });
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            () = seat.leave() => None,
            () = self.stop.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                self.abort.run_until_cancelled(&mut connection).await
            }
        };
        let line = connection.into_parts().io.into_inner();
        let reason = match &ended {
            None if self.stop.is_cancelled() => return None,
            None => Some("gave-way"),
            Some(Ok(())) => line.fault(),
            Some(Err(error)) => Some(line.fault().unwrap_or(if error.is_parse() { "garbage" } else { "broken" })),
        };
        match reason {
            Some("gave-way") => line.say_last(words::GAVE_WAY),
            Some("head-timeout") => line.say_last(words::TOO_SLOW),
            Some("garbage") => line.say_last(words::NO_HTTP),
            _ => {}
        }
        reason
    }
}

/// Answers leave at once, and little of them waits in the kernel.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_send_buffer_size(SEND_BUFFER)
}

/// Answers the requests of one connection.
struct Reception {
    door: Arc<Door>,
    seat: Arc<Seat>,
}

impl Service<Request<Incoming>> for Reception {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let seat = Arc::clone(&self.seat);
        if seat.is_guest() && !pages::is_essential(request.uri().path()) {
            self.door.context.meters.refused_as("max-http-connections");
            let full = pages::full(self.door.context.config.max_http_connections);
            return async move { Ok(full) }.boxed();
        }
        let answer = self.door.pages.call(request);
        async move {
            let _serving = seat.serve();
            answer.await
        }
        .boxed()
    }
}
