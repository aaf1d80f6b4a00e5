//! Where the body of an answer ends, and what is in it without the frames of its chunks.

use std::borrow::Cow;

use httparse::Status;

use super::head::Body;
use crate::probe::BODY_LIMIT;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After this many bytes.
    At(usize),
    /// Further on: read more.
    Further,
    /// Too far away to read on.
    Far,
    /// Nowhere that makes sense.
    Bad(&'static str),
}

/// Looks for the end of a body of which `bytes` is the beginning.
pub(super) fn end(body: Body, bytes: &[u8]) -> End {
    let end = match body {
        Body::UntilClose => End::Far,
        Body::Length(length) => match usize::try_from(length) {
            Ok(length) if length <= bytes.len() => End::At(length),
            Ok(length) if length <= BODY_LIMIT => End::Further,
            _ => End::Far,
        },
        Body::Chunked => chunked_end(bytes),
    };
    if end == End::Further && bytes.len() >= BODY_LIMIT { End::Far } else { end }
}

/// What a body says of which `bytes` is the beginning: as much as is there, and no more than anybody wants to know.
pub(super) fn content(body: Body, bytes: &[u8]) -> Cow<'_, [u8]> {
    let whole = match body {
        Body::UntilClose => bytes.len(),
        Body::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Body::Chunked => return Cow::Owned(unchunked(bytes)),
    };
    Cow::Borrowed(bytes.get(..whole.min(BODY_LIMIT)).or(bytes.get(..BODY_LIMIT)).unwrap_or(bytes))
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while content.len() < BODY_LIMIT
        && let Ok(Status::Complete((line, size @ 1..))) = httparse::parse_chunk_size(bytes)
    {
        let rest = bytes.get(line..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        content.extend_from_slice(rest.get(..size).unwrap_or(rest));
        bytes = size.checked_add(2).and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    content.truncate(BODY_LIMIT);
    content
}

fn chunked_end(bytes: &[u8]) -> End {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (line, size) = match httparse::parse_chunk_size(rest) {
            Ok(Status::Complete(found)) => found,
            Ok(Status::Partial) => return End::Further,
            Err(_) => return End::Bad("the answer's chunks make no sense"),
        };
        if size == 0 {
            return trailer_end(bytes, at + line);
        }
        let Some(next) = usize::try_from(size).ok().and_then(|size| size.checked_add(at + line)) else {
            return End::Far;
        };
        if next > BODY_LIMIT {
            return End::Far;
        }
        match bytes.get(next..) {
            None | Some([] | [b'\r']) => return End::Further,
            Some([b'\r', b'\n', ..]) => at = next + 2,
            Some(_) => return End::Bad("the answer's chunks make no sense"),
        }
    }
}

/// After the last chunk come fields, like in a head, and an empty line.
fn trailer_end(bytes: &[u8], mut at: usize) -> End {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { return End::Further };
        at += line + 1;
        if matches!(rest.get(..line), Some([] | [b'\r'])) {
            return End::At(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bodies_with_a_length_end_there() {
        assert_eq!(end(Body::Length(0), b""), End::At(0));
        assert_eq!(end(Body::Length(2), b"o"), End::Further);
        assert_eq!(end(Body::Length(2), b"okay"), End::At(2));
        assert_eq!(end(Body::Length(5_000), b""), End::Far);
        assert_eq!(end(Body::Length(u64::MAX), b""), End::Far);
        assert_eq!(end(Body::UntilClose, b""), End::Far);
    }

    #[test]
    fn chunks_end_after_the_empty_one() {
        let whole = b"2\r\nok\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(end(Body::Chunked, whole), End::At(whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(end(Body::Chunked, &whole[..cut]), End::Further, "{cut}");
        }
        assert_eq!(end(Body::Chunked, b"0\r\n\r\nHTTP"), End::At(5));
        for bad in [&b"xyz\r\n"[..], b"2\r\nokay\r\n", b"-1\r\n", b"fffffffffffffffff\r\n"] {
            assert!(matches!(end(Body::Chunked, bad), End::Bad(_)), "{bad:?}");
        }
        assert_eq!(end(Body::Chunked, b"ffffffffffffffff\r\n"), End::Far);
        assert_eq!(end(Body::Chunked, b"2000\r\n"), End::Far);
        assert_eq!(end(Body::Chunked, "1\r\nx\r\n".repeat(1_000).as_bytes()), End::Far);
    }

    #[test]
    fn the_content_is_free_of_frames() {
        let chunked = b"2\r\nok\r\n3;x=y\r\nay!\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(*content(Body::Chunked, chunked), *b"okay!");
        for cut in 0..chunked.len() {
            let part = content(Body::Chunked, &chunked[..cut]);
            assert!(b"okay!".starts_with(&part), "{cut}");
        }
        assert_eq!(*content(Body::Chunked, b"ffffffffffffffff\r\nok"), *b"ok");
        assert_eq!(*content(Body::Chunked, b"nonsense"), *b"");
        assert_eq!(*content(Body::Length(2), b"okay"), *b"ok");
        assert_eq!(*content(Body::Length(9), b"okay"), *b"okay");
        assert_eq!(*content(Body::UntilClose, b"okay"), *b"okay");
        for body in [Body::UntilClose, Body::Length(u64::MAX), Body::Length(5_000)] {
            assert_eq!(content(body, &[b'x'; 6_000]).len(), BODY_LIMIT);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..6_000)) {
            for body in [Body::Chunked, Body::Length(5), Body::Length(u64::MAX)] {
                prop_assert!(content(body, &bytes).len() <= BODY_LIMIT);
                prop_assert!(end(body, &bytes) != End::Further || bytes.len() < BODY_LIMIT);
            }
        }

        #[test]
        fn broken_chunks_never_panic(place in 0_usize..50, byte in any::<u8>(), cut in 0_usize..60) {
            let mut bytes = b"2\r\nok\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n".to_vec();
            bytes.truncate(cut);
            if let Some(there) = bytes.get_mut(place) {
                *there = byte;
            }
            prop_assert!(content(Body::Chunked, &bytes).len() <= bytes.len());
            if let End::At(length) = end(Body::Chunked, &bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
