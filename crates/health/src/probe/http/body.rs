//! Where the body of an answer ends. Only that: nobody reads what it says.

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

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..6_000)) {
            for body in [Body::Chunked, Body::Length(5), Body::Length(u64::MAX)] {
                prop_assert!(end(body, &bytes) != End::Further || bytes.len() < BODY_LIMIT);
            }
        }
    }
}
