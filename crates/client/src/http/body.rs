//! What is sent and received: bytes, or a stream that is read piece by piece.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody, combinators::UnsyncBoxBody};

/// An error of any kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer, from whichever client.
pub(crate) type AnyBody = BoxBody<Bytes, BoxError>;
/// The body of a request, from whomever.
pub(crate) type Outbound = UnsyncBoxBody<Bytes, BoxError>;

/// The body of a [`Request`](super::Request), or of an answer that is [streamed](super::Streamed): an [`http_body::Body`] itself.
///
/// It is made of bytes or a text by `From`, of anything else by [`Body::wrap`] and [`Body::from_stream`].
///
/// ```
/// use roundsman::http::Body;
///
/// let text = Body::from("an apple");
/// let pieces = futures::stream::iter(["an ", "apple"]).map(Ok::<_, std::io::Error>);
/// # use futures::StreamExt;
/// let stream = Body::from_stream(pieces);
/// ```
pub struct Body(Kind);

enum Kind {
    /// Empty when it was read.
    Whole(Bytes),
    Stream {
        shared: Arc<Shared>,
        /// Of this copy.
        reader: u64,
    },
}

/// A stream can be read once: by whoever of its copies begins.
struct Shared {
    reading: Mutex<Reading>,
    copies: AtomicU64,
}

struct Reading {
    body: Outbound,
    reader: Option<u64>,
}

/// Whoever makes the body cannot go on. Looked for among the causes of a failure: it is not the instance's.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub(super) struct BrokenOff(#[source] BoxError);

/// Another copy of the body is being sent.
#[derive(Debug, thiserror::Error)]
#[error("the body went along with another try")]
struct Elsewhere;

// === impl BrokenOff ===

impl BrokenOff {
    /// The error with this mark, which it may have already where one body is made of another.
    fn mark(error: BoxError) -> BoxError {
        if error.is::<Self>() { error } else { Self(error).into() }
    }
}

// === impl Body ===

impl Body {
    /// Any other body, which is read as it is sent. A body that was begun cannot be sent a second time.
    pub fn wrap<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let body = body.map_err(Into::into).boxed_unsync();
        let reading = Mutex::new(Reading { body, reader: None });
        Self(Kind::Stream { shared: Arc::new(Shared { reading, copies: AtomicU64::new(1) }), reader: 0 })
    }

    /// A stream of pieces, which is read as it is sent.
    pub fn from_stream<S, P, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<P, E>> + Send + 'static,
        P: Into<Bytes>,
        E: Into<BoxError> + 'static,
    {
        Self::wrap(StreamBody::new(stream.map_ok(|piece| Frame::data(piece.into())).map_err(Into::into)))
    }

    /// The bytes, if it is not a stream.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Stream { .. } => None,
        }
    }

    /// Whether copies of it can be sent side by side.
    pub(crate) fn is_copy(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }

    /// Whether nobody has begun to read it.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.0 {
            Kind::Whole(_) => true,
            Kind::Stream { shared, .. } => shared.lock().reader.is_none(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Bytes::new().into()
    }
}

/// Copies of a stream share it: one of them can be read.
impl Clone for Body {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Kind::Whole(bytes) => Kind::Whole(bytes.clone()),
            Kind::Stream { shared, .. } => {
                let reader = shared.copies.fetch_add(1, Ordering::Relaxed);
                Kind::Stream { shared: Arc::clone(shared), reader }
            }
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream { shared, reader } => {
                let mut reading = shared.lock();
                if reading.reader.get_or_insert(*reader) != reader {
                    return Poll::Ready(Some(Err(BrokenOff::mark(Elsewhere.into()))));
                }
                let frame = ready!(Pin::new(&mut reading.body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BrokenOff::mark)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream { shared, .. } => shared.lock().body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len().try_into().unwrap_or(u64::MAX)),
            Kind::Stream { shared, .. } => shared.lock().body.size_hint(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("Body");
        match &self.0 {
            Kind::Whole(bytes) => debug.field(&format_args!("{} bytes", bytes.len())).finish(),
            Kind::Stream { .. } => debug.finish_non_exhaustive(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }
}

macro_rules! from_bytes {
    ($($bytes:ty),+) => {$(
        impl From<$bytes> for Body {
            fn from(bytes: $bytes) -> Self {
                Bytes::from(bytes).into()
            }
        }
    )+};
}

from_bytes!(Vec<u8>, String, &'static [u8], &'static str);

#[cfg(feature = "reqwest")]
impl From<reqwest::Body> for Body {
    fn from(body: reqwest::Body) -> Self {
        match body.as_bytes() {
            Some(bytes) => Bytes::copy_from_slice(bytes).into(),
            None => Self::wrap(body),
        }
    }
}

#[cfg(feature = "reqwest")]
impl From<Body> for reqwest::Body {
    fn from(body: Body) -> Self {
        match body.0 {
            Kind::Whole(bytes) => bytes.into(),
            Kind::Stream { .. } => Self::wrap(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: Body) -> Result<Bytes, BoxError> {
        Ok(body.collect().await?.to_bytes())
    }

    fn pieces() -> Body {
        Body::from_stream(futures::stream::iter(["an ", "apple"].map(Ok::<_, BoxError>)))
    }

    #[tokio::test]
    async fn bytes_are_sent_as_often_as_wanted() {
        for body in [Body::from("an apple"), "an apple".to_owned().into(), b"an apple".to_vec().into()] {
            let copy = body.clone();
            assert!(body.is_copy() && HttpBody::size_hint(&body).exact() == Some(8));
            assert_eq!(read(body).await.unwrap(), "an apple");
            assert!(copy.is_whole());
            assert_eq!(read(copy).await.unwrap(), "an apple");
        }
        assert!(Body::default().is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_is_read_by_whoever_begins_and_by_nobody_else() {
        let (first, second) = (pieces(), pieces());
        let unread = first.clone();
        assert!(!first.is_copy() && first.is_whole());
        drop(first);
        assert!(unread.is_whole(), "a copy that was not read took nothing along");
        assert_eq!(read(unread).await.unwrap(), "an apple");
        let (mut begun, other) = (second.clone(), second);
        assert_eq!(begun.frame().await.unwrap().unwrap().into_data().unwrap(), "an ");
        assert!(!other.is_whole());
        assert!(read(other).await.unwrap_err().source().is_some_and(|cause| cause.is::<Elsewhere>()));
        assert_eq!(read(begun).await.unwrap(), "apple");
    }
}
