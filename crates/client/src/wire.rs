//! Frames on a connection, with the limits that the server has, too.

use std::{io, pin::Pin};

use bytes::{Bytes, BytesMut};
use roundsman_protocol::{
    Dialect, DiscoveryRequest, DiscoveryResponse, InstanceId, Version, limits,
    wire::{MessageError, read_response, write_message},
};
use tarpc::{ClientMessage, Request, Response};

use crate::health::INSTANCE_HEADER;

/// The dialect of a connection, for messages of the current version. It refuses to send what the server would not take.
///
/// A server closes the connection on too large a frame, and with it every other call; refused here, only
/// the one call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames(pub(crate) Dialect);

// === impl Frames ===

impl tokio_serde::Serializer<ClientMessage<DiscoveryRequest>> for Frames {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &ClientMessage<DiscoveryRequest>) -> Result<Bytes, io::Error> {
        let unidentified = if self.0.version == Version::V1 { unidentified(message) } else { None };
        let frame = write_message(self.0, unidentified.as_ref().unwrap_or(message)).map_err(|error| match error {
            MessageError::Invalid(invalid) => io::Error::other(invalid),
            error @ MessageError::Codec(_) => io::Error::other(error),
        })?;
        if frame.len() > limits::MAX_FRAME_BYTES {
            let (limit, size) = (limits::MAX_FRAME_BYTES, frame.len());
            return Err(io::Error::other(format!("must fit in a frame of {limit} bytes, has {size}")));
        }
        Ok(Bytes::from(frame))
    }
}

/// The message without the identity that the library itself has visits look for. Every service has one, and has to get along
/// with a server that cannot look for it; what else a registration expects is its owner's word, and refused there.
fn unidentified(message: &ClientMessage<DiscoveryRequest>) -> Option<ClientMessage<DiscoveryRequest>> {
    let ClientMessage::Request(Request { context, id, message: DiscoveryRequest::Register { registration } }) = message
    else {
        return None;
    };
    let (name, value) = registration.check.expect.as_deref()?.as_header()?;
    if name != INSTANCE_HEADER || Some(value) != registration.id.as_ref().map(InstanceId::as_str) {
        return None;
    }
    let instance = value;
    tracing::warn!(
        id = instance,
        "the server speaks version 1 of the protocol: its visits do not see whether it is this instance that answers"
    );
    let mut registration = registration.clone();
    registration.check.expect = None;
    let message = DiscoveryRequest::Register { registration };
    Some(ClientMessage::Request(Request { context: *context, id: *id, message }))
}

impl tokio_serde::Deserializer<Response<DiscoveryResponse>> for Frames {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> Result<Response<DiscoveryResponse>, io::Error> {
        read_response(self.0, frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use roundsman_protocol::{Codec, Expect, Invalid, Registration};
    use tokio_serde::Serializer;

    use super::*;

    fn registration(bytes: usize, expect: Option<Expect>) -> ClientMessage<DiscoveryRequest> {
        let mut registration = Registration::new("a".parse().unwrap(), "a:1".parse().unwrap());
        registration.id = Some("a-1".parse().unwrap());
        registration.tags = vec!["x".repeat(bytes).into()];
        registration.check.expect = expect.map(Arc::new);
        let message = DiscoveryRequest::Register { registration };
        ClientMessage::Request(Request { context: tarpc::context::current(), id: 1, message })
    }

    fn write(version: Version, message: &ClientMessage<DiscoveryRequest>) -> Result<Bytes, io::Error> {
        Pin::new(&mut Frames(Dialect { version, codec: Codec::Postcard })).serialize(message)
    }

    #[test]
    fn what_the_server_would_not_take_is_not_sent() {
        for version in Version::ALL {
            assert!(write(version, &registration(limits::MAX_FRAME_BYTES - 256, None)).is_ok());
            let refused = write(version, &registration(limits::MAX_FRAME_BYTES, None)).unwrap_err().to_string();
            assert!(refused.starts_with("must fit in a frame of 1048576 bytes, has 10486"), "{refused}");
        }
    }

    #[test]
    fn what_a_server_of_version_1_cannot_look_for_is_an_error_unless_it_is_the_librarys_own() {
        for version in Version::ALL {
            let own = registration(1, Some(Expect::header(INSTANCE_HEADER, "a-1")));
            assert!(write(version, &own).is_ok());
            for expect in [Expect::body("x"), Expect::header(INSTANCE_HEADER, "b-1"), Expect::header("x", "a-1")] {
                let written = write(version, &registration(1, Some(expect)));
                assert_eq!(written.is_err(), version == Version::V1);
                let inner = written.err().and_then(io::Error::into_inner);
                assert!(inner.is_none_or(|error| error.downcast::<Invalid>().unwrap().field == "check.expect"));
            }
        }
    }
}
