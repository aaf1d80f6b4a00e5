//! The RPC door in postcard, in any version of the protocol, with answers that are counted and mostly thrown away.
//!
//! What a client makes of a snapshot is not what is measured here: it would take more time than the server does.

use std::{cell::RefCell, net::SocketAddr, time::Duration};

use roundsman_protocol::{
    Bookmark, Codec, Dialect, DiscoveryRequest, DiscoveryResponse, Namespace, Version,
    handshake::{Hello, Welcome},
    limits,
    wire::{read_response, write_message},
};
use rustix::net::{RecvFlags, recv};
use tarpc::{ClientMessage, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};

use crate::{
    error::{Context, Failure, Result},
    rpc,
};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shorter answers are read as a whole, of longer ones the end: a bookmark is there.
const TAIL: usize = 600;
/// Bytes that are thrown away at once.
const DISCARD: usize = 1_024 * 1_024;

/// A connection without buffers of its own.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    dialect: Dialect,
    /// Bytes both ways, handshake included.
    pub(crate) bytes: usize,
}

/// An answer that was not read as a whole, perhaps.
#[derive(Debug)]
pub(crate) struct Skimmed {
    /// How long it was.
    pub(crate) length: usize,
    tail: Vec<u8>,
    dialect: Dialect,
}

// === impl Raw ===

impl Raw {
    /// Connects to a server that speaks this version.
    pub(crate) async fn open(server: SocketAddr, version: Version) -> Result<Self> {
        let stream = TcpStream::connect(server).await.context(format!("connecting to {server}"))?;
        stream.set_nodelay(true).context("setting nodelay")?;
        let dialect = Dialect { version, codec: Codec::Postcard };
        let mut raw = Self { stream, dialect, bytes: 0 };
        let hello = Hello {
            roundsman: version.number(),
            oldest: None,
            ..Hello::new(dialect.codec, Namespace::default(), None)
        };
        raw.write(&serde_json::to_vec(&hello).context("writing the handshake")?).await?;
        let answer = raw.skim().await?;
        let welcome: Welcome = serde_json::from_slice(&answer.tail).context("reading the handshake")?;
        match welcome.error {
            Some(error) => Err(Failure::new("the handshake", error)),
            None => Ok(raw),
        }
    }

    pub(crate) async fn send(&mut self, id: u64, message: DiscoveryRequest) -> Result<()> {
        let request = ClientMessage::Request(Request { context: rpc::within(PATIENCE), id, message });
        let body = write_message(self.dialect, &request).context("writing a request")?;
        self.write(&body).await
    }

    /// Reads the next answer, all but its end into nothing.
    pub(crate) async fn skim(&mut self) -> Result<Skimmed> {
        let read = async {
            let length = self.stream.read_u32().await.context("reading from the server")?;
            let length = usize::try_from(length).context("a frame's length")?;
            if length > limits::MAX_ANSWER_BYTES {
                return Err(Failure::new("reading from the server", format!("a frame of {length} bytes")));
            }
            self.discard(length.saturating_sub(TAIL)).await?;
            let mut tail = vec![0; length.min(TAIL)];
            self.stream.read_exact(&mut tail).await.context("reading from the server")?;
            self.bytes += length + 4;
            Ok(Skimmed { length, tail, dialect: self.dialect })
        };
        let late = |_| Failure::Late { what: "an answer".to_owned(), limit: PATIENCE };
        timeout(PATIENCE, read).await.map_err(late)?
    }

    async fn write(&mut self, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len()).context("a frame's length")?;
        let frame = [&length.to_be_bytes(), body].concat();
        self.bytes += frame.len();
        self.stream.write_all(&frame).await.context("writing to the server")
    }

    /// The kernel forgets what it has received, without handing it over.
    async fn discard(&self, mut count: usize) -> Result<()> {
        thread_local!(static NOWHERE: RefCell<Vec<u8>> = RefCell::new(vec![0; DISCARD]));
        while count > 0 {
            let most = count.min(DISCARD);
            let discard = || {
                NOWHERE.with_borrow_mut(|nowhere| {
                    let room = nowhere.get_mut(..most).unwrap_or_default();
                    Ok(recv(&self.stream, room, RecvFlags::TRUNC)?.1)
                })
            };
            match self.stream.async_io(Interest::READABLE, discard).await.context("reading from the server")? {
                0 => return Err(Failure::new("reading from the server", "it hung up")),
                gone => count = count.saturating_sub(gone),
            }
        }
        Ok(())
    }
}

// === impl Skimmed ===

impl Skimmed {
    /// The answer, when it was short enough to be read as a whole.
    pub(crate) fn answer(&self) -> Result<DiscoveryResponse> {
        if self.length > self.tail.len() {
            return Err(Failure::new("reading an answer", format!("it has {} bytes", self.length)));
        }
        let response = read_response(self.dialect, &self.tail).context("reading an answer")?;
        response.message.map_err(|error| Failure::new("a call", error.to_string()))
    }

    /// Where the next page begins. A refusal is an error.
    pub(crate) fn next(&self) -> Result<Option<Bookmark>> {
        if self.length <= self.tail.len() {
            return match self.answer()? {
                DiscoveryResponse::Watch(update) => Ok(update.context("watching")?.next),
                other => Err(Failure::new("watching", format!("{other:?}"))),
            };
        }
        Ok(bookmark(&self.tail))
    }
}

/// The bookmark at the end of an update in postcard: no removed, no parts, a one, its length, and its text. A text ends
/// in no zero, which is what an update without a bookmark ends in.
fn bookmark(tail: &[u8]) -> Option<Bookmark> {
    (1..=limits::MAX_BOOKMARK_LEN).find_map(|length| {
        let (head, text) = tail.split_at_checked(tail.len().checked_sub(length)?)?;
        let low = u8::try_from(length % 128).ok()?;
        let high = u8::try_from(length / 128).ok()?;
        let before: &[u8] = if high == 0 { &[0, 0, 1, low] } else { &[0, 0, 1, low | 128, high] };
        let text = head.ends_with(before).then(|| std::str::from_utf8(text).ok())??;
        Bookmark::try_new(text).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{Cursor, Update};

    fn update(next: Option<Bookmark>) -> Vec<u8> {
        let update = Update { snapshot: true, next, ..Update::unchanged(Cursor { epoch: 77, revision: 5 }) };
        Codec::Postcard.write(&update).unwrap()
    }

    #[test]
    fn a_bookmark_is_found_at_the_end_of_a_page() {
        for length in [1, 127, 128, 300, limits::MAX_BOOKMARK_LEN] {
            let next = Some(Bookmark::try_new("x".repeat(length)).unwrap());
            assert_eq!(bookmark(&update(next.clone())), next, "{length}");
        }
        assert_eq!(bookmark(&update(None)), None);
        assert_eq!(bookmark(&[]), None);
    }

    #[tokio::test]
    async fn of_a_long_answer_only_the_end_is_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, mut server) = (stream.unwrap(), accepted.unwrap().0);
        let sent = async {
            for length in [3_000_000_usize, 10] {
                let body: Vec<u8> = (0..length).map(|at| if at + 3 < length { 7 } else { 9 }).collect();
                server.write_all(&u32::try_from(length).unwrap().to_be_bytes()).await.unwrap();
                server.write_all(&body).await.unwrap();
            }
        };
        let dialect = Dialect { version: Version::CURRENT, codec: Codec::Postcard };
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw { stream, dialect, bytes: 0 };
        let ((), read) = tokio::join!(sent, async { (raw.skim().await.unwrap(), raw.skim().await.unwrap()) });
        assert_eq!((read.0.length, read.0.tail.len(), read.1.length), (3_000_000, TAIL, 10));
        assert!(read.0.tail.ends_with(&[7, 9, 9, 9]) && read.1.tail.ends_with(&[7, 9, 9, 9]));
        assert_eq!(raw.bytes, 3_000_018);
        assert!(read.0.answer().is_err());
    }
}
