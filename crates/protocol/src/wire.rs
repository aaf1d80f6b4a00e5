//! Requests as a server must read them: in two steps, and without trust.
//!
//! tarpc's own `ClientMessage` adds the deadline that a client sent to the time now, which overflows and
//! panics on an absurd one; and it reads header and request in one go, so that a request with a bad name in
//! it could not even be answered. [`Head::read`] reads the same bytes in steps: whatever has a readable head can
//! be refused with a sentence.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    codec::{Codec, CodecError},
    rpc::DiscoveryRequest,
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
pub fn read_request(body: &Body<'_>) -> Result<DiscoveryRequest, CodecError> {
    match body {
        Body::Postcard(bytes) => postcard::from_bytes(bytes).map_err(CodecError::Postcard),
        Body::Json(raw) => serde_json::from_str(raw.get()).map_err(CodecError::Json),
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
                matches!(read_request(&body).unwrap(), DiscoveryRequest::Get { service } if service.as_str() == "product")
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
        read_request(&body).unwrap();
    }

    #[test]
    fn an_absurd_deadline_and_a_bad_name_leave_the_head_readable() {
        let frame = br#"{"Request":{"context":{"deadline":{"secs":18446744073709551615,"nanos":0}},"id":3,"message":{"Get":{"service":"a b"}}}}"#;
        let Head::Request { id: 3, body, .. } = Head::read(Codec::Json, frame).unwrap() else { panic!() };
        assert!(read_request(&body).unwrap_err().to_string().contains("name: must be"));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..256)) {
            for codec in [Codec::Postcard, Codec::Json] {
                if let Ok(Head::Request { body, .. }) = Head::read(codec, &frame) {
                    drop(read_request(&body));
                }
            }
        }

        #[test]
        fn damaged_frames_are_refused_and_never_panic(at in 0_usize..64, byte in any::<u8>()) {
            let mut frame = Codec::Postcard.write(&sent(7)).unwrap();
            let at = at % frame.len();
            frame[at] = byte;
            if let Ok(Head::Request { body, .. }) = Head::read(Codec::Postcard, &frame) {
                drop(read_request(&body));
            }
        }
    }
}
