//! Frames on the wire: a length and a message.

use std::{io, sync::Arc};

use bytes::{BufMut, BytesMut};
use roundsman_protocol::{Codec, DiscoveryResponse};
use roundsman_registry::Record;
use tarpc::{Response, ServerError};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

/// Bytes of the length before each frame, big-endian.
const HEADER: usize = 4;
/// Where `get` stands in the RPC trait.
const GET: u8 = 4;

/// Reads frames of bounded length, and writes messages in the connection's codec.
#[derive(Debug)]
pub(super) struct Frames {
    frames: LengthDelimitedCodec,
    pub(super) codec: Codec,
}

/// What the server says.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// An answer.
    Answer { id: u64, message: Box<Result<DiscoveryResponse, ServerError>> },
    /// The answer to a successful `get`, whose instance is kept encoded: what lookups cost is mostly this.
    Got { id: u64, record: Arc<Record> },
    /// The handshake's frame.
    Raw(Vec<u8>),
}

// === impl Frames ===

impl Frames {
    pub(super) fn new(max_frame: usize) -> Self {
        let frames = LengthDelimitedCodec::builder().max_frame_length(max_frame).new_codec();
        Self { frames, codec: Codec::Json }
    }

    /// From now on frames of up to `max_frame` bytes in this codec.
    pub(super) fn switch(&mut self, max_frame: usize, codec: Codec) {
        self.frames.set_max_frame_length(max_frame);
        self.codec = codec;
    }

    fn write(&self, message: &Outgoing, out: &mut BytesMut) -> io::Result<()> {
        match message {
            Outgoing::Raw(bytes) => out.put_slice(bytes),
            Outgoing::Got { id, record } if self.codec == Codec::Postcard => {
                let mut number = [0; 10];
                let id = postcard::to_slice(id, &mut number).map_err(io::Error::other)?;
                out.put_slice(id);
                // Response.message: Ok; DiscoveryResponse: Get; its result: Ok; and the instance.
                out.put_slice(&[0, GET, 0]);
                out.put_slice(record.encoded());
            }
            Outgoing::Got { id, record } => {
                let instance = Arc::clone(&record.instance);
                self.put(out, &Response { request_id: *id, message: Ok(DiscoveryResponse::Get(Ok(instance))) })?;
            }
            Outgoing::Answer { id, message } => {
                self.put(out, &Response { request_id: *id, message: Result::as_ref(message).map_err(Clone::clone) })?;
            }
        }
        Ok(())
    }

    fn put<T: serde::Serialize>(&self, out: &mut BytesMut, message: &T) -> io::Result<()> {
        out.put_slice(&self.codec.write(message).map_err(io::Error::other)?);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.frames.decode(src)
    }
}

impl Encoder<Outgoing> for Frames {
    type Error = io::Error;

    fn encode(&mut self, message: Outgoing, out: &mut BytesMut) -> io::Result<()> {
        let start = out.len();
        out.put_u32(0);
        self.write(&message, out)?;
        let length = out.len() - start - HEADER;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        if let Some(header) = out.get_mut(start..start + HEADER) {
            header.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{Registration, Timestamp};
    use roundsman_registry::Key;

    #[test]
    fn the_short_cut_writes_what_tarpc_would() {
        let registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
        let record = Arc::new(Record::registered(&key, &registration, 1, Timestamp::from_millis(1)));
        for codec in [Codec::Postcard, Codec::Json] {
            for id in [0, 127, 128, u64::MAX] {
                let mut frames = Frames::new(1_024);
                frames.switch(65_536, codec);
                let mut written = BytesMut::new();
                frames.encode(Outgoing::Got { id, record: Arc::clone(&record) }, &mut written).unwrap();
                let frame = frames.decode(&mut written).unwrap().unwrap();
                let message = Ok(DiscoveryResponse::Get(Ok(Arc::clone(&record.instance))));
                let expected = codec.write(&Response { request_id: id, message }).unwrap();
                assert_eq!(&frame[..], expected);
            }
        }
    }

    #[test]
    fn longer_frames_are_refused_before_they_are_read() {
        let mut frames = Frames::new(16);
        let mut input = BytesMut::from(&[0, 0, 0, 17][..]);
        assert!(frames.decode(&mut input).is_err());
        let mut input = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
        assert!(frames.decode(&mut input).is_err(), "a length of a gigabyte");
    }
}
