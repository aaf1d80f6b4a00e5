//! How messages become frames: postcard for programs, JSON for people and for every other language.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The codec of a connection, chosen in the handshake.
///
/// Ours instead of tokio-serde's own, which read through an `io::Read` and cost half as much again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Compact and fast; both sides must know the types.
    #[default]
    Postcard,
    /// Readable, and at hand in any language.
    Json,
}

/// A message that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// In postcard.
    #[error("postcard: {0}")]
    Postcard(postcard::Error),
    /// In JSON.
    #[error("json: {0}")]
    Json(serde_json::Error),
}

// === impl Codec ===

impl Codec {
    /// Writes a message.
    ///
    /// # Errors
    /// When a type refuses to be written.
    pub fn write<T: Serialize + ?Sized>(self, message: &T) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Postcard => postcard::to_allocvec(message).map_err(CodecError::Postcard),
            Self::Json => serde_json::to_vec(message).map_err(CodecError::Json),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When the bytes are not such a message.
    pub fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Postcard => postcard::from_bytes(bytes).map_err(CodecError::Postcard),
            Self::Json => serde_json::from_slice(bytes).map_err(CodecError::Json),
        }
    }
}

impl<T: Serialize> tokio_serde::Serializer<T> for Codec {
    type Error = std::io::Error;
    fn serialize(self: Pin<&mut Self>, message: &T) -> Result<Bytes, Self::Error> {
        self.write(message).map(Bytes::from).map_err(invalid_data)
    }
}

impl<T: DeserializeOwned> tokio_serde::Deserializer<T> for Codec {
    type Error = std::io::Error;
    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> Result<T, Self::Error> {
        self.read(frame).map_err(invalid_data)
    }
}

fn invalid_data(error: CodecError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}
