//! Messages as they are read and written, in every version of the protocol.
//!
//! Requests are read as a server must read them: in two steps, and without trust.
//! tarpc's own `ClientMessage` adds the deadline that a client sent to the time now, which overflows and
//! panics on an absurd one; and it reads header and request in one go, so that a request with a bad name in
//! it could not even be answered. [`Head::read`] reads the same bytes in steps: whatever has a readable head can
//! be refused with a sentence.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tarpc::{ClientMessage, Request, Response, ServerError};

use crate::{
    codec::{Codec, CodecError},
    error::Invalid,
    rpc::{DiscoveryRequest, DiscoveryResponse},
    v1, v2,
    version::{Dialect, Version},
};

/// The deadline of a call that names none; tarpc's default.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A message's head, and the request still unread.
#[derive(Debug)]
pub enum Head<'a> {
    /// A call.
    Request {
        /// The id to answer under.
        id: u64,
        /// How long the caller waits.
        deadline: Duration,
        /// The request, to be read with [`read_request`].
        body: Body<'a>,
    },
    /// The caller no longer waits for this call.
    Cancel {
        /// The id of the call.
        id: u64,
    },
}

/// The bytes of a request.
#[derive(Debug)]
pub enum Body<'a> {
    /// In postcard.
    Postcard(&'a [u8]),
    /// In JSON.
    Json(&'a RawValue),
}

/// A method without arguments, said by its name alone or with `null` for them, as people who write JSON by hand do.
#[derive(Deserialize)]
enum Bare {
    Services,
    Status,
    Graph,
}

#[derive(Deserialize)]
enum Envelope<'a> {
    Request {
        #[serde(default)]
        context: Context,
        id: u64,
        #[serde(borrow)]
        message: &'a RawValue,
    },
    Cancel {
        request_id: u64,
    },
}

/// Field for field what tarpc's `Context` is on the wire.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    #[serde(deserialize_with = "some_deadline")]
    deadline: Option<Duration>,
    trace_context: tarpc::trace::Context,
}

fn some_deadline<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Duration::deserialize(deserializer).map(Some)
}

// === impl Head ===

impl<'a> Head<'a> {
    /// Reads a message's head.
    ///
    /// # Errors
    /// When the bytes are no message at all. Nothing after them on the connection can be trusted.
    pub fn read(codec: Codec, frame: &'a [u8]) -> Result<Self, CodecError> {
        match codec {
            Codec::Postcard => Self::read_postcard(frame).map_err(CodecError::Postcard),
            Codec::Json => {
                let envelope = serde_json::from_slice(frame).map_err(CodecError::Json)?;
                Ok(match envelope {
                    Envelope::Request { context, id, message } => Self::Request {
                        id,
                        deadline: context.deadline.unwrap_or(DEFAULT_DEADLINE),
                        body: Body::Json(message),
                    },
                    Envelope::Cancel { request_id } => Self::Cancel { id: request_id },
                })
            }
        }
    }

    fn read_postcard(frame: &'a [u8]) -> postcard::Result<Self> {
        let (variant, rest) = postcard::take_from_bytes::<u32>(frame)?;
        match variant {
            0 => {
                let ((context, id), body) = postcard::take_from_bytes::<(Context, u64)>(rest)?;
                Ok(Self::Request {
                    id,
                    deadline: context.deadline.unwrap_or(DEFAULT_DEADLINE),
                    body: Body::Postcard(body),
                })
            }
            1 => {
                let (_trace, id) = postcard::from_bytes::<(tarpc::trace::Context, u64)>(rest)?;
                Ok(Self::Cancel { id })
            }
            _ => Err(postcard::Error::DeserializeBadEnum),
        }
    }
}

/// Reads the request itself.
///
/// # Errors
/// When a field breaks its rule; the message is for the caller.
pub fn read_request(version: Version, body: &Body<'_>) -> Result<DiscoveryRequest, CodecError> {
    let read = match (version, body) {
        (Version::V3, body) => body.read(),
        // In JSON, requests of version 2 are those of version 1 with fields that may be absent.
        (Version::V2, body) | (Version::V1, body @ Body::Json(_)) => body.read::<v2::Request>().map(Into::into),
        (Version::V1, body) => body.read::<v1::Request>().map(Into::into),
    };
    // Looked at last: what is written in full must not pay for it.
    read.or_else(|error| body.bare().map(Into::into).ok_or(error))
}

/// Writes a client's message as a server of that version reads it.
///
/// # Errors
/// When the version cannot express it; the message names the field and the version.
pub fn write_message(dialect: Dialect, message: &ClientMessage<DiscoveryRequest>) -> Result<Vec<u8>, MessageError> {
    let Dialect { version, codec } = dialect;
    let written = match (version, message) {
        (Version::V2, ClientMessage::Request(request)) => codec.write(&as_sent(request, <v2::Request>::of)?),
        (Version::V1, ClientMessage::Request(request)) => codec.write(&as_sent(request, v1::Request::of)?),
        (_, message) => codec.write(message),
    };
    written.map_err(MessageError::Codec)
}

/// A message that could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The version that the server speaks cannot express it.
    #[error(transparent)]
    Invalid(Invalid),
    /// It could not be written.
    #[error(transparent)]
    Codec(CodecError),
}

fn as_sent<T: serde::Serialize>(
    request: &Request<DiscoveryRequest>,
    convert: impl FnOnce(DiscoveryRequest) -> Result<T, Invalid>,
) -> Result<ClientMessage<T>, MessageError> {
    let message = convert(request.message.clone()).map_err(MessageError::Invalid)?;
    Ok(ClientMessage::Request(Request { context: request.context, id: request.id, message }))
}

/// Reads the answer of a server that speaks this version.
///
/// # Errors
/// When the bytes are no such answer.
pub fn read_response(dialect: Dialect, frame: &[u8]) -> Result<Response<DiscoveryResponse>, CodecError> {
    fn read<T: DeserializeOwned + Into<DiscoveryResponse>>(
        codec: Codec,
        frame: &[u8],
    ) -> Result<Response<DiscoveryResponse>, CodecError> {
        let Response { request_id, message } = codec.read::<Response<T>>(frame)?;
        Ok(Response { request_id, message: message.map(Into::into) })
    }
    let Dialect { version, codec } = dialect;
    match version {
        Version::V3 => codec.read(frame),
        Version::V2 => read::<v2::Response>(codec, frame),
        Version::V1 => read::<v1::Response>(codec, frame),
    }
}

/// An answer in the words of a version, ready to be written. Borrowed in the current one.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Answer<'a> {
    /// In version 3.
    V3(Response<&'a DiscoveryResponse>),
    /// In version 2.
    V2(Response<v2::Response>),
    /// In version 1.
    V1(Response<v1::Response>),
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// The answer to call `request_id` for a client that speaks this version.
    #[must_use]
    pub fn new(version: Version, request_id: u64, message: &'a Result<DiscoveryResponse, ServerError>) -> Self {
        match version {
            Version::V3 => Self::V3(Response { request_id, message: message.as_ref().map_err(Clone::clone) }),
            Version::V2 => Self::V2(Response { request_id, message: message.clone().map(Into::into) }),
            Version::V1 => Self::V1(Response { request_id, message: message.clone().map(Into::into) }),
        }
    }
}

// === impl Body ===

impl Body<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self {
            Self::Postcard(bytes) => postcard::from_bytes(bytes).map_err(CodecError::Postcard),
            Self::Json(raw) => serde_json::from_str(raw.get()).map_err(CodecError::Json),
        }
    }

    fn bare(&self) -> Option<Bare> {
        match self {
            Self::Postcard(_) => None,
            Self::Json(raw) => serde_json::from_str(raw.get()).ok(),
        }
    }
}

impl From<Bare> for DiscoveryRequest {
    fn from(bare: Bare) -> Self {
        match bare {
            Bare::Services => Self::Services {},
            Bare::Status => Self::Status {},
            Bare::Graph => Self::Graph {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tarpc::{ClientMessage, Request};

    fn get() -> DiscoveryRequest {
        DiscoveryRequest::Get { service: "product".parse().unwrap() }
    }

    fn sent(id: u64) -> ClientMessage<DiscoveryRequest> {
        ClientMessage::Request(Request { context: tarpc::context::current(), id, message: get() })
    }

    #[test]
    fn reads_what_tarpc_writes() {
        for codec in [Codec::Postcard, Codec::Json] {
            let frame = codec.write(&sent(7)).unwrap();
            let Head::Request { id: 7, deadline, body } = Head::read(codec, &frame).unwrap() else {
                panic!("{frame:?}")
            };
            assert!(deadline > Duration::from_secs(8) && deadline <= DEFAULT_DEADLINE);
            assert!(
                matches!(read_request(Version::CURRENT, &body).unwrap(), DiscoveryRequest::Get { service } if service.as_str() == "product")
            );
            let cancel = ClientMessage::<DiscoveryRequest>::Cancel {
                trace_context: tarpc::trace::Context::default(),
                request_id: 9,
            };
            let frame = codec.write(&cancel).unwrap();
            assert!(matches!(Head::read(codec, &frame).unwrap(), Head::Cancel { id: 9 }));
        }
    }

    #[test]
    fn a_call_written_by_hand_needs_no_context() {
        let frame = br#"{"Request":{"id":1,"message":{"Get":{"service":"Product"}}}}"#;
        let Head::Request { id: 1, deadline, body } = Head::read(Codec::Json, frame).unwrap() else { panic!() };
        assert_eq!(deadline, DEFAULT_DEADLINE);
        read_request(Version::CURRENT, &body).unwrap();
    }

    #[test]
    fn methods_without_arguments_are_their_names_in_every_version() {
        for name in ["Services", "Status", "Graph"] {
            for message in [format!("\"{name}\""), format!("{{\"{name}\":null}}"), format!("{{\"{name}\":{{}}}}")] {
                let frame = format!("{{\"Request\":{{\"id\":1,\"message\":{message}}}}}");
                let Head::Request { body, .. } = Head::read(Codec::Json, frame.as_bytes()).unwrap() else { panic!() };
                for version in [Version::V1, Version::V2, Version::V3] {
                    let read = format!("{:?}", read_request(version, &body).unwrap());
                    assert!(read.starts_with(name), "{message}: {read}");
                }
            }
        }
        for message in ["\"Get\"", "{\"Get\":null}", "\"Nonsense\""] {
            let frame = format!("{{\"Request\":{{\"id\":1,\"message\":{message}}}}}");
            let Head::Request { body, .. } = Head::read(Codec::Json, frame.as_bytes()).unwrap() else { panic!() };
            let refused = read_request(Version::CURRENT, &body).unwrap_err().to_string();
            assert!(!refused.contains("Bare") && !refused.is_empty(), "{refused}");
        }
    }

    #[test]
    fn an_absurd_deadline_and_a_bad_name_leave_the_head_readable() {
        let frame = br#"{"Request":{"context":{"deadline":{"secs":18446744073709551615,"nanos":0}},"id":3,"message":{"Get":{"service":"a b"}}}}"#;
        let Head::Request { id: 3, body, .. } = Head::read(Codec::Json, frame).unwrap() else { panic!() };
        assert!(read_request(Version::CURRENT, &body).unwrap_err().to_string().contains("name: must be"));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..256)) {
            for codec in [Codec::Postcard, Codec::Json] {
                if let Ok(Head::Request { body, .. }) = Head::read(codec, &frame) {
                    drop(read_request(Version::CURRENT, &body));
                }
            }
        }

        #[test]
        fn damaged_frames_are_refused_and_never_panic(at in 0_usize..64, byte in any::<u8>()) {
            let mut frame = Codec::Postcard.write(&sent(7)).unwrap();
            let at = at % frame.len();
            frame[at] = byte;
            if let Ok(Head::Request { body, .. }) = Head::read(Codec::Postcard, &frame) {
                drop(read_request(Version::CURRENT, &body));
            }
        }
    }
}
