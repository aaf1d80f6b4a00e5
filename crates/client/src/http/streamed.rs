//! An answer whose body is read as it comes.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use roundsman_protocol::Instance;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Error, Response,
    body::{AnyBody, Body, BoxError},
    failure::Failure,
};
use crate::balance::Verdict;

/// The answer to a call, of which the head is there; made by [`Request::stream`](super::Request::stream).
///
/// The body is read by [`Streamed::chunk`], by [`Streamed::read`], or by whoever takes any body ([`Streamed::into_http`]). It
/// is cut off when the time of the call is up.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
/// let mut answer = discovery.http("product").get("/catalogue").stream().await?;
/// while let Some(chunk) = answer.chunk().await? {
///     println!("{} bytes of {}", chunk.len(), answer.instance().id);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Streamed {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Timed,
    pub(super) instance: Arc<Instance>,
    pub(super) tries: u32,
    pub(super) limit: usize,
}

/// A body that ends with the time of its call. If it breaks off before, that counts against its instance, whoever reads it.
pub(super) struct Timed {
    body: AnyBody,
    until: Pin<Box<Sleep>>,
    verdict: Option<Arc<Verdict>>,
}

// === impl Streamed ===

impl Streamed {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Who answers.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// On which try, counted from one.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The next piece of the body; `None` when it has ended. Cancel safe.
    ///
    /// # Errors
    /// [`Error::BodyBroken`] when the rest will not come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            // What follows the body is told by `into_http` alone.
            if let Ok(piece) = frame.map_err(|error| self.broken(&error))?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Reads the rest, up to the [limit](super::Request::body_limit) of the request.
    ///
    /// # Errors
    /// [`Error::BodyBroken`] and [`Error::TooLarge`].
    pub async fn read(mut self) -> Result<Response, Error> {
        let mut read = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if read.len().saturating_add(piece.len()) > self.limit {
                return Err(Error::TooLarge { instance: self.instance, limit: self.limit });
            }
            read.extend_from_slice(&piece);
        }
        let Self { status, headers, body: Timed { verdict, .. }, instance, tries, .. } = self;
        let body = read;
        Ok(Response { status, headers, body: body.freeze(), instance, tries, verdict })
    }

    /// Says that the answer is of no use; see [`Response::reject`].
    pub fn reject(mut self, reason: impl fmt::Display) -> Error {
        self.body.refuse();
        Error::Unreadable { instance: self.instance, status: self.status, detail: reason.to_string() }
    }

    /// The same as others know it, to be passed on for instance. Who answers is among its extensions.
    #[must_use]
    pub fn into_http(self) -> http::Response<Body> {
        let mut response = http::Response::new(Body::wrap(self.body));
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        response.extensions_mut().insert(self.instance);
        response
    }

    /// What became of the body.
    fn broken(&self, error: &BoxError) -> Error {
        let Failure { trouble, detail, .. } = Failure::broken(&**error);
        Error::BodyBroken { instance: Arc::clone(&self.instance), status: self.status, trouble, detail }
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Streamed");
        debug.field("status", &self.status).field("headers", &self.headers).field("instance", &self.instance.id);
        debug.finish_non_exhaustive()
    }
}

// === impl Timed ===

impl Timed {
    pub(super) fn new(body: AnyBody, until: Instant, verdict: Option<Arc<Verdict>>) -> Self {
        Self { body, until: Box::pin(sleep_until(until)), verdict }
    }

    /// Tells the instance's circuit, once.
    fn refuse(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            verdict.rejected();
        }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // The time first: a body that always has something more ends all the same. It counts against nobody, as its caller gave
        // it too little.
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame
            && Failure::broken(&**error).counts()
        {
            self.refuse();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
