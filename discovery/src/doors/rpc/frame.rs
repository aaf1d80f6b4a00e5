//! Frames on the wire: a length of four bytes, big-endian, and a message in the connection's codec.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use roundsman_protocol::{
    Codec, Dialect, DiscoveryRequest, DiscoveryResponse, Version,
    handshake::Welcome,
    wire::{Answer, Head, read_request},
};
use roundsman_registry::Record;
use tarpc::ServerError;

use super::{encoded::Encoded, outbox::Outbox};
use crate::method::Method;

/// Bytes of the length before each frame.
pub(super) const HEADER: usize = 4;
/// The id of an answer to something that has none that could be read.
pub(super) const NO_ID: u64 = u64::MAX;

/// What the server says.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// An answer.
    Answer { id: u64, message: Box<Result<DiscoveryResponse, ServerError>> },
    /// The answer to a successful `get`, whose instance is kept encoded: what lookups cost is mostly this.
    Got { id: u64, record: Arc<Record> },
    /// A long answer, which others may get as well.
    Shared { id: u64, encoded: Arc<Encoded> },
    /// A long answer that only this caller gets, as a frame.
    Framed(Bytes),
    /// The answer to a handshake.
    Welcome(Box<Welcome>),
}

/// What a client said.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "calls are nearly all, and live for a moment on the stack")]
pub(super) enum Incoming {
    /// A call.
    Call { id: u64, deadline: Duration, request: DiscoveryRequest },
    /// It no longer waits for a call.
    Cancel { id: u64 },
    /// A call whose request breaks a rule.
    Unreadable { id: u64, error: String },
    /// No message. What follows on the connection cannot be trusted.
    Garbage { error: String },
}

// === impl Incoming ===

impl Incoming {
    /// Reads the message of a frame.
    pub(super) fn read(dialect: Dialect, frame: &[u8]) -> Self {
        let (id, deadline, body) = match Head::read(dialect.codec, frame) {
            Ok(Head::Request { id, deadline, body }) => (id, deadline, body),
            Ok(Head::Cancel { id }) => return Self::Cancel { id },
            Err(error) => return Self::Garbage { error: error.to_string() },
        };
        match read_request(dialect.version, &body) {
            Ok(request) => Self::Call { id, deadline, request },
            Err(error) => Self::Unreadable { id, error: error.to_string() },
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// An error outside of every method, with a sentence for the caller.
    pub(super) fn refusal(id: u64, kind: io::ErrorKind, sentence: String) -> Self {
        Self::Answer { id, message: Box::new(Err(ServerError::new(kind, sentence))) }
    }

    /// Puts it into the outbox, as a frame.
    pub(super) fn put(&self, dialect: Dialect, outbox: &mut Outbox) -> io::Result<()> {
        match self {
            Self::Shared { id, encoded } => encoded.put(dialect.codec, *id, outbox),
            Self::Framed(frame) => {
                outbox.share([frame.clone()]);
                Ok(())
            }
            short => outbox.append(|out| frame(out, |out| short.write(dialect, out))),
        }
    }

    fn write(&self, dialect: Dialect, out: &mut Vec<u8>) -> io::Result<()> {
        let Dialect { version, codec } = dialect;
        match self {
            // What it keeps is an instance of the current version.
            Self::Got { id, record } if codec == Codec::Postcard && version >= Version::V3 => {
                put_number(*id, out)?;
                // Response.message: Ok; DiscoveryResponse: Get; its result: Ok; and the instance.
                out.extend_from_slice(&[0, Method::Get.number(), 0]);
                out.extend_from_slice(record.encoded());
                Ok(())
            }
            Self::Got { id, record } => {
                let instance = Arc::clone(&record.instance);
                put(codec, out, &Answer::new(version, *id, &Ok(DiscoveryResponse::Get(Ok(instance)))))
            }
            Self::Answer { id, message } => put(codec, out, &Answer::new(version, *id, message)),
            Self::Welcome(welcome) => put(Codec::Json, out, welcome),
            // Not short: they are shared with the outbox instead.
            Self::Shared { .. } | Self::Framed(_) => Ok(()),
        }
    }
}

/// Writes a number as postcard does.
pub(super) fn put_number(number: u64, out: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 10];
    out.extend_from_slice(postcard::to_slice(&number, &mut bytes).map_err(io::Error::other)?);
    Ok(())
}

/// Writes a message.
pub(super) fn put<T: serde::Serialize>(codec: Codec, out: &mut Vec<u8>, message: &T) -> io::Result<()> {
    match codec {
        Codec::Json => serde_json::to_writer(out, message).map_err(io::Error::other),
        Codec::Postcard => {
            let written = postcard::to_extend(message, std::mem::take(out)).map_err(io::Error::other)?;
            *out = written;
            Ok(())
        }
    }
}

/// Writes a frame around what `write` writes.
pub(super) fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out)?;
    let length = u32::try_from(out.len() - start - HEADER).map_err(io::Error::other)?;
    if let Some(header) = out.get_mut(start..start + HEADER) {
        header.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{Registration, Timestamp, wire::read_response};
    use roundsman_registry::Key;

    #[test]
    fn the_short_cut_writes_what_tarpc_would() {
        let registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
        let record = Arc::new(Record::registered(&key, &registration, 1, Timestamp::from_millis(1)));
        for (version, codec) in Version::ALL.into_iter().flat_map(|v| [(v, Codec::Postcard), (v, Codec::Json)]) {
            for id in [0, 127, 128, u64::MAX] {
                let (mut written, dialect) = (Vec::new(), Dialect { version, codec });
                let got = Outgoing::Got { id, record: Arc::clone(&record) };
                frame(&mut written, |out| got.write(dialect, out)).unwrap();
                let message = Ok(DiscoveryResponse::Get(Ok(Arc::clone(&record.instance))));
                let expected = codec.write(&Answer::new(version, id, &message)).unwrap();
                assert_eq!(u32::from_be_bytes(written[..4].try_into().unwrap()) as usize, expected.len());
                assert_eq!(&written[4..], expected);
                let read = read_response(dialect, &written[4..]).unwrap();
                assert!(
                    matches!(read.message, Ok(DiscoveryResponse::Get(Ok(instance))) if instance == record.instance)
                );
            }
        }
    }
}
