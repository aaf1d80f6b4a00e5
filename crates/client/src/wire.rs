//! Frames on a connection, with the limits that the server has, too.

use std::{io, pin::Pin};

use bytes::{Bytes, BytesMut};
use roundsman_protocol::{
    Dialect, DiscoveryRequest, DiscoveryResponse, limits,
    wire::{MessageError, read_response, write_message},
};
use tarpc::{ClientMessage, Response};

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
        let frame = write_message(self.0, message).map_err(|error| match error {
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

impl tokio_serde::Deserializer<Response<DiscoveryResponse>> for Frames {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> Result<Response<DiscoveryResponse>, io::Error> {
        read_response(self.0, frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::{Codec, Invalid, Registration};
    use tokio_serde::Serializer;

    use super::*;

    fn write(dialect: Dialect, bytes: usize, expects: bool) -> Result<Bytes, io::Error> {
        let mut registration = Registration::new("a".parse().unwrap(), "a:1".parse().unwrap());
        registration.tags = vec!["x".repeat(bytes).into()];
        let expect = roundsman_protocol::Expect::body("x");
        registration.check.expect = expects.then(|| std::sync::Arc::new(expect));
        let message = DiscoveryRequest::Register { registration };
        let request = tarpc::Request { context: tarpc::context::current(), id: 1, message };
        Pin::new(&mut Frames(dialect)).serialize(&ClientMessage::Request(request))
    }

    #[test]
    fn what_the_server_would_not_take_is_not_sent() {
        for version in roundsman_protocol::Version::ALL {
            let dialect = Dialect { version, codec: Codec::Postcard };
            assert!(write(dialect, limits::MAX_FRAME_BYTES - 256, false).is_ok());
            let refused = write(dialect, limits::MAX_FRAME_BYTES, false).unwrap_err().to_string();
            assert!(refused.starts_with("must fit in a frame of 1048576 bytes, has 10486"), "{refused}");
            let expecting = write(dialect, 1, true);
            assert_eq!(expecting.is_err(), version == roundsman_protocol::Version::V1);
            let invalid = expecting.err().and_then(|error| error.into_inner()).map(|inner| inner.downcast::<Invalid>());
            assert!(invalid.is_none_or(|invalid| invalid.unwrap().field == "check.expect"));
        }
    }
}
