//! What a connection has to say and its client has not taken yet.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{io::AsyncWrite, net::TcpStream};

/// A buffer that grew beyond this is given back once it is empty.
const KEPT: usize = 16 * 1_024;
/// How much is written before other connections get a turn: to a client that reads fast, the socket never fills, and
/// megabytes in a row would keep a thread for milliseconds.
const TURN: usize = 128 * 1_024;

/// Bytes on their way to the client: short answers are written into one buffer, long ones are chunks that several
/// connections may share.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    /// Behind all chunks.
    tail: Vec<u8>,
    /// How much of the tail is written; more than 0 only when there are no chunks.
    written: usize,
    len: usize,
}

// === impl Outbox ===

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends what `write` writes.
    pub(super) fn append<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let before = self.tail.len();
        let result = write(&mut self.tail);
        if result.is_err() {
            self.tail.truncate(before);
        }
        self.len += self.tail.len() - before;
        result
    }

    /// Appends bytes that are kept elsewhere, too.
    pub(super) fn share(&mut self, chunks: impl IntoIterator<Item = Bytes>) {
        if self.tail.len() > self.written {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(self.written);
            self.chunks.push_back(tail);
        }
        self.tail.clear();
        self.written = 0;
        // An empty one would be written for ever.
        for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Writes as much as the socket takes, or as much as one turn allows: then the task is woken for the next one. Ready
    /// when everything is written; `moved` says whether anything was.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut TaskContext<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        let mut turn = 0;
        while self.len > 0 {
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let next = match self.chunks.front() {
                Some(chunk) => chunk,
                None => self.tail.get(self.written..).unwrap_or_default(),
            };
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, next))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *moved = true;
            turn += count;
            self.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Everything, for tests.
    #[cfg(test)]
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        self.chunks.drain(..).for_each(|chunk| out.extend_from_slice(&chunk));
        self.len = 0;
    }

    fn advance(&mut self, count: usize) {
        self.len -= count;
        match self.chunks.front_mut() {
            Some(chunk) if count < chunk.len() => chunk.advance(count),
            Some(_) => drop(self.chunks.pop_front()),
            None => self.written += count,
        }
        if self.len == 0 {
            self.written = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT);
            self.chunks.shrink_to(8);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn short_and_shared_bytes_arrive_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
        for n in 0..50_u8 {
            let short = vec![n; 100];
            outbox.append(|tail| io::Write::write_all(tail, &short)).unwrap();
            expected.extend_from_slice(&short);
            if n % 3 == 0 {
                let shared = Bytes::from(vec![n; 70_000]);
                outbox.share([shared.clone(), shared.slice(..10)]);
                expected.extend_from_slice(&shared);
                expected.extend_from_slice(&shared[..10]);
            }
        }
        let failed = outbox.append(|tail| {
            tail.push(1);
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(outbox.len(), expected.len());
        let writing = async {
            std::future::poll_fn(|cx| outbox.poll_write(&mut server, cx, &mut false)).await.unwrap();
        };
        let mut read = vec![0; expected.len()];
        let (_, result) = tokio::join!(writing, client.read_exact(&mut read));
        result.unwrap();
        assert!(outbox.is_empty());
        assert!(read == expected);
    }

    #[tokio::test]
    async fn nobody_keeps_a_thread_for_megabytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        socket2::SockRef::from(&server).set_send_buffer_size(4 << 20).unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(4 << 20).unwrap();
        let mut outbox = Outbox::default();
        outbox.share((0..32).map(|_| Bytes::from(vec![7; 64 * 1_024])));
        let (all, mut turns) = (outbox.len(), 0);
        let writing = std::future::poll_fn(|cx| {
            let before = outbox.len();
            let written = outbox.poll_write(&mut server, cx, &mut false);
            turns += 1;
            // A chunk is written in one go, so a turn may end a little late.
            assert!(before - outbox.len() <= TURN + 64 * 1_024);
            written
        });
        let mut read = vec![0; all];
        let (written, result) = tokio::join!(writing, client.read_exact(&mut read));
        written.unwrap();
        result.unwrap();
        assert!(turns >= all / (TURN + 64 * 1_024));
    }

    #[tokio::test]
    async fn an_empty_chunk_is_nothing_to_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut outbox = Outbox::default();
        outbox.share([Bytes::new(), Bytes::from_static(b"ab"), Bytes::new()]);
        std::future::poll_fn(|cx| outbox.poll_write(&mut server, cx, &mut false)).await.unwrap();
        outbox.append(|tail| io::Write::write_all(tail, b"c")).unwrap();
        std::future::poll_fn(|cx| outbox.poll_write(&mut server, cx, &mut false)).await.unwrap();
        let mut read = [0; 3];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abc");
    }
}
