//! Who carries requests to an instance: a client that speaks plain HTTP and nothing else, or one of the user's own.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use tower::Service;

use super::{
    CONNECT_TIMEOUT,
    body::{AnyBody, Body, BoxError},
    failure::Failure,
};

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(90);
/// How long nothing may be heard on a connection before the other side is asked, and how long between two such questions.
const SILENCE: Duration = Duration::from_secs(15);
/// So many such questions without an answer end it.
const QUESTIONS: u32 = 3;
/// How long what was sent may go without a receipt.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const RECEIPT: Duration = Duration::from_secs(30);

/// A status, headers, and the body read to its end.
pub(crate) type Read = (StatusCode, HeaderMap, Bytes);

/// Keeps connections to the instances. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    /// Goes to the address that discovery named: no proxy, no redirects, no TLS.
    Plain(Arc<legacy::Client<Connector, Body>>),
    /// The user's own.
    #[cfg(feature = "reqwest")]
    Foreign(reqwest::Client),
}

/// Connects, name lookup included, within [`CONNECT_TIMEOUT`].
#[derive(Clone, Debug)]
pub(crate) struct Connector(HttpConnector);

// === impl Client ===

impl Client {
    pub(crate) fn plain() -> Self {
        Self::Plain(Arc::new(builder().build(Connector::new())))
    }

    /// One that speaks HTTP/2 from the first byte on, with one connection to each instance.
    #[cfg(feature = "grpc")]
    pub(crate) fn multiplexed() -> Self {
        Self::Plain(Arc::new(builder().http2_only(true).build(Connector::new())))
    }

    /// Sends a request and reads the answer to its end, if it has at most so many bytes.
    pub(crate) async fn read(&self, request: Request<Body>, limit: usize) -> Result<Read, Failure> {
        match self {
            Self::Plain(client) => read(client.request(request).await?, limit).await,
            #[cfg(feature = "reqwest")]
            Self::Foreign(client) => read(foreign(client, request).await?, limit).await,
        }
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn begin(&self, request: Request<Body>) -> Result<Response<AnyBody>, Failure> {
        Ok(match self {
            Self::Plain(client) => client.request(request).await?.map(boxed),
            #[cfg(feature = "reqwest")]
            Self::Foreign(client) => foreign(client, request).await?.map(boxed),
        })
    }
}

/// What all clients of our own have in common.
fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
    builder
}

#[cfg(feature = "reqwest")]
async fn foreign(client: &reqwest::Client, request: Request<Body>) -> Result<Response<reqwest::Body>, Failure> {
    let answered = async { client.execute(request.try_into()?).await };
    answered.await.map(Into::into).map_err(|error: reqwest::Error| Failure::from(&error))
}

async fn read<B>(response: Response<B>, limit: usize) -> Result<Read, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let fits = |length: usize| if length > limit { Err(Failure::too_large(limit)) } else { Ok(()) };
    let (head, mut body) = response.into_parts();
    fits(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX))?;
    // Most answers come in one piece, which is not copied.
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::broken(&*error.into()))?;
        let Ok(piece) = frame.into_data() else { continue };
        fits(first.len().saturating_add(more.len()).saturating_add(piece.len()))?;
        if first.is_empty() && more.is_empty() {
            first = piece;
            continue;
        }
        more.extend_from_slice(&std::mem::take(&mut first));
        more.extend_from_slice(&piece);
    }
    Ok((head.status, head.headers, if more.is_empty() { first } else { more.freeze() }))
}

fn boxed<B>(body: B) -> AnyBody
where
    B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed()
}

// === impl Connector ===

impl Connector {
    fn new() -> Self {
        let mut tcp = HttpConnector::new();
        // Where a name has several addresses each gets its part of the time.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(SILENCE));
        tcp.set_keepalive_interval(Some(SILENCE));
        tcp.set_keepalive_retries(Some(QUESTIONS));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(RECEIPT));
        Self(tcp)
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        async move {
            let late = |_| BoxError::from(io::Error::from(io::ErrorKind::TimedOut));
            timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?.map_err(Into::into)
        }
        .boxed()
    }
}
