//! Frames on a connection, with the limits that the server has, too.

use std::{io, pin::Pin};

use bytes::{Bytes, BytesMut};
use roundsman_protocol::{Codec, limits};
use serde::{Serialize, de::DeserializeOwned};

/// A [`Codec`] that refuses to send what the server would not take.
///
/// A server closes the connection on too large a frame, and with it every other call; refused here, only
/// the one call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames(pub(crate) Codec);

// === impl Frames ===

impl<T: Serialize> tokio_serde::Serializer<T> for Frames {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &T) -> Result<Bytes, io::Error> {
        let frame = self.0.write(message).map_err(io::Error::other)?;
        if frame.len() > limits::MAX_FRAME_BYTES {
            let (limit, size) = (limits::MAX_FRAME_BYTES, frame.len());
            return Err(io::Error::other(format!("must fit in a frame of {limit} bytes, has {size}")));
        }
        Ok(Bytes::from(frame))
    }
}

impl<T: DeserializeOwned> tokio_serde::Deserializer<T> for Frames {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> Result<T, io::Error> {
        self.0.read(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use tokio_serde::Serializer;

    use super::*;

    #[test]
    fn what_the_server_would_not_take_is_not_sent() {
        let write = |text: &str| {
            let mut frames = Frames(Codec::Postcard);
            Pin::new(&mut frames).serialize(&text.to_owned())
        };
        assert!(write(&"x".repeat(limits::MAX_FRAME_BYTES - 8)).is_ok());
        let refused = write(&"x".repeat(limits::MAX_FRAME_BYTES)).unwrap_err().to_string();
        assert!(refused.starts_with("must fit in a frame of 1048576 bytes, has 10485"), "{refused}");
    }
}
