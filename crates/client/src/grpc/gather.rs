//! Keeps a request that is there at once, so that it can be sent again.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future::poll_fn, stream};
use http_body_util::{BodyExt, BodyStream, StreamBody};

use crate::http::{Body, BoxError, Outbound};

/// So many bytes are kept at most.
const KEPT: usize = 1024 * 1024;

/// The whole body, if all of it is there without waiting and it is not too long; a stream of it otherwise.
pub(super) async fn gather<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body: Outbound = body.map_err(Into::into).boxed_unsync();
    let (mut frames, mut length) = (Vec::new(), 0_usize);
    while length <= KEPT {
        let frame = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut body.frame()).poll(cx))).await;
        match frame {
            Poll::Ready(None) => return joined(frames).into(),
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
                frames.push(frame);
            }
            // An error, or trailers, which no client of gRPC sends: told where they belong.
            Poll::Ready(Some(other)) => {
                let begun = stream::iter(frames.into_iter().map(Ok).chain([other]));
                return Body::wrap(StreamBody::new(begun.chain(BodyStream::new(body))));
            }
            Poll::Pending => break,
        }
    }
    Body::wrap(StreamBody::new(stream::iter(frames.into_iter().map(Ok)).chain(BodyStream::new(body))))
}

fn joined(frames: Vec<http_body::Frame<Bytes>>) -> Bytes {
    let mut pieces = frames.into_iter().filter_map(|frame| frame.into_data().ok());
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else { return first };
    let mut all = BytesMut::from(&*first);
    all.extend_from_slice(&second);
    pieces.for_each(|piece| all.extend_from_slice(&piece));
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces.to_vec()).map(|piece| Ok::<_, BoxError>(Bytes::from(piece))))
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_kept_and_what_is_not_goes_on_as_a_stream() {
        for pieces in [&[][..], &["one"], &["one", "two"], &["one", "two", "three"]] {
            let whole = gather(of(pieces)).await;
            assert!(whole.is_copy());
            assert_eq!(whole.collect().await.unwrap().to_bytes(), pieces.concat());
        }
        let later = stream::once(async {
            tokio::task::yield_now().await;
            Ok(Bytes::from("later"))
        });
        let begun = Body::from_stream(stream::iter([Ok::<_, BoxError>(Bytes::from("now "))]).chain(later));
        let streamed = gather(begun).await;
        assert!(!streamed.is_copy() && streamed.is_whole());
        assert_eq!(streamed.collect().await.unwrap().to_bytes(), "now later");
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_kept_and_errors_are_passed_on() {
        let long = Bytes::from(vec![b'x'; KEPT / 2 + 1]);
        let pieces = [long.clone(), long.clone(), long].map(Ok::<_, BoxError>);
        let streamed = gather(Body::from_stream(stream::iter(pieces))).await;
        assert!(!streamed.is_copy());
        assert_eq!(streamed.collect().await.unwrap().to_bytes().len(), 3 * (KEPT / 2 + 1));
        let broken = [Ok(Bytes::from("one")), Err(BoxError::from("no more"))];
        let streamed = gather(Body::from_stream(stream::iter(broken))).await;
        assert_eq!(streamed.collect().await.unwrap_err().source().unwrap().to_string(), "no more");
    }
}
