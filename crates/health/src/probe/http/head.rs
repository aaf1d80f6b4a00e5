//! The head of an answer.

use httparse::{EMPTY_HEADER, Error, Header, Response, Status};

use crate::probe::identity;

/// The longest head that is read.
const HEAD_LIMIT: usize = 8 * 1_024;
/// The most fields in it.
const MOST_FIELDS: usize = 64;

/// What matters of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) code: u16,
    /// Whether the connection may be used again once the body was read.
    pub(super) keeps: bool,
    pub(super) body: Body,
    /// Whether it has the field that it was to have, if it was to have one.
    pub(super) known: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

// === impl Head ===

impl Head {
    /// Whether it only says that the answer is still to come. 101 is final: we asked for no other protocol.
    pub(super) fn is_interim(&self) -> bool {
        (100..200).contains(&self.code) && self.code != 101
    }

    pub(super) fn passes(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Reads a head from the beginning of `bytes`, which is to have the field `wanted`. `None`: it is not complete. Gives
/// its length, too.
pub(super) fn parse(bytes: &[u8], wanted: Option<(&str, &str)>) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut response = Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(Status::Complete(length)) if length <= HEAD_LIMIT => length,
        Ok(Status::Partial) if bytes.len() <= HEAD_LIMIT => return Ok(None),
        Ok(_) => return Err("the head of the answer is longer than 8 KiB"),
        Err(Error::TooManyHeaders) => return Err("the answer has more than 64 header fields"),
        Err(_) => return Err("the answer is not HTTP/1"),
    };
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err("the answer is not HTTP/1");
    };
    let (body, plain) = body(code, version, response.headers)?;
    let keeps = match version {
        0 => has_word(response.headers, "connection", "keep-alive"),
        _ => !has_word(response.headers, "connection", "close"),
    };
    let known = wanted.is_none_or(|(name, value)| identity::in_fields(value, named(response.headers, name)));
    Ok(Some((Head { code, keeps: keeps && plain && code != 101, body, known }, length)))
}

/// How the body ends, and whether nothing about that is dubious.
fn body(code: u16, version: u8, fields: &[Header<'_>]) -> Result<(Body, bool), &'static str> {
    let length = content_length(fields)?;
    if code < 200 || matches!(code, 204 | 304) {
        return Ok((Body::Length(0), true));
    }
    let coded = named(fields, "transfer-encoding").next().is_some();
    match (coded, length) {
        (false, Some(length)) => Ok((Body::Length(length), true)),
        (false, None) => Ok((Body::UntilClose, false)),
        (true, length) if version > 0 && has_word(fields, "transfer-encoding", "chunked") => {
            Ok((Body::Chunked, length.is_none()))
        }
        (true, _) => Ok((Body::UntilClose, false)),
    }
}

fn content_length(fields: &[Header<'_>]) -> Result<Option<u64>, &'static str> {
    let mut found = None;
    for value in named(fields, "content-length") {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match (length, found) {
            (Some(length), None) => found = Some(length),
            (Some(length), Some(before)) if length == before => {}
            _ => return Err("the answer's Content-Length makes no sense"),
        }
    }
    Ok(found)
}

fn named<'a>(fields: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
}

/// Whether a field that is a list of words has this one.
fn has_word(fields: &[Header<'_>], name: &str, word: &str) -> bool {
    named(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        let text = format!("{text}\r\n\r\n");
        let (head, length) = parse(text.as_bytes(), None).unwrap().unwrap();
        assert_eq!(length, text.len());
        head
    }

    #[test]
    fn heads_say_how_the_body_ends_and_whether_the_connection_stays() {
        for (text, code, keeps, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2", 200, true, Body::Length(2)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nContent-Length: 2", 200, true, Body::Length(2)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close", 200, false, Body::Length(2)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2", 200, false, Body::Length(2)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive", 200, true, Body::Length(2)),
            ("HTTP/1.1 200\r\nTransfer-Encoding: chunked", 200, true, Body::Chunked),
            ("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nContent-Length: 2", 200, false, Body::Chunked),
            ("HTTP/1.1 200\r\nTransfer-Encoding: gzip", 200, false, Body::UntilClose),
            ("HTTP/1.1 200 OK", 200, false, Body::UntilClose),
            ("HTTP/1.1 204 No Content", 204, true, Body::Length(0)),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9", 304, true, Body::Length(0)),
            ("HTTP/1.1 101 Switching Protocols", 101, false, Body::Length(0)),
        ] {
            assert_eq!(head(text), Head { code, keeps, body, known: true }, "{text}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ] {
            assert!(parse(text.as_bytes(), None).is_err(), "{text}");
        }
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nServer:", None), Ok(None));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert!(parse(many.as_bytes(), None).unwrap_err().contains("64"));
        let huge = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD_LIMIT));
        assert!(parse(huge.as_bytes(), None).unwrap_err().contains("8 KiB"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, Some(("x", "y")));
            let _ = parse(&[b"HTTP/1.1 200 OK\r\n", &*bytes].concat(), Some(("x", "y")));
        }
    }
}
