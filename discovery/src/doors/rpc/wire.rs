//! The socket of a connection: what came in and is not cut into frames yet, and what is to go out.
//!
//! Buffers exist while there is something in them: thousands of connections that wait cost next to nothing. A client
//! has time for as long as it makes progress, and none when it stops in the middle of a frame or of an answer.

use std::{
    future::poll_fn,
    io,
    ops::Range,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use roundsman_protocol::{Codec, Dialect, Namespace};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    End,
    frame::{HEADER, Outgoing},
    outbox::Outbox,
};
use crate::memory::{Budget, Reservation};

/// How much is read at a time.
const READ: usize = 16 * 1_024;
/// Frames longer than this are accounted for while they come in.
const LONG: usize = 16 * 1_024;
/// With more than this to go out, nothing more is read or answered: thousands of clients that do not read must not
/// make the server keep more than a little for each.
const HIGH: usize = 16 * 1_024;
/// How long a client may make no progress, with an answer or with a frame of its own.
pub(super) const STALL: Duration = Duration::from_secs(30);
/// Who sends a long frame has a millisecond more for each byte: less than a kilobyte a second is no progress.
const PER_BYTE: Duration = Duration::from_millis(1);
/// What the kernel may hold of answers that are not read. With more, a slow but steady reader would seem to stand still
/// for minutes while it empties the kernel's buffer.
const SEND_BUFFER: usize = 128 * 1_024;
/// How long, and for how many bytes, a client that is told goodbye is listened to: a socket that is closed with unread
/// input throws away what it has not sent yet.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1_024 * 1_024;

/// The socket of a connection, with its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Where in the inbox the next frame begins.
    start: usize,
    outbox: Outbox,
    dialect: Dialect,
    max_frame: usize,
    /// For a long frame that is coming in.
    reservation: Option<Reservation>,
    accounts: Option<(Arc<Budget>, Namespace)>,
    unread: Option<Instant>,
    unfinished: Option<Unfinished>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A frame that has begun and not ended.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    since: Instant,
    progress: Instant,
    bytes: usize,
}

/// What happened on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// There is more in the inbox.
    Read,
    /// There is room in the outbox again.
    Written,
    /// The client sends no more.
    Ended,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(stream: TcpStream, max_frame: usize) -> Self {
        if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
            tracing::debug!(%error, "cannot set the send buffer of an RPC connection");
        }
        Self {
            stream,
            inbox: Vec::new(),
            start: 0,
            outbox: Outbox::default(),
            dialect: Codec::Json.into(),
            max_frame,
            reservation: None,
            accounts: None,
            unread: None,
            unfinished: None,
            timer: None,
        }
    }

    /// From now on frames of up to `max_frame` bytes in this dialect, accounted for.
    pub(super) fn switch(&mut self, max_frame: usize, dialect: Dialect, budget: Arc<Budget>, namespace: Namespace) {
        (self.max_frame, self.dialect) = (max_frame, dialect);
        self.accounts = Some((budget, namespace));
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether more may be answered: not while the client leaves much unread.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < HIGH
    }

    /// Puts an answer into the outbox.
    pub(super) fn put(&mut self, outgoing: &Outgoing) -> Result<(), End> {
        outgoing.put(self.dialect, &mut self.outbox).map_err(|error| {
            tracing::error!(%error, "an answer could not be written");
            End::Closed("broken")
        })
    }

    /// Where the next whole frame lies in the inbox, if there is one. It is gone with [`Wire::frame_done`].
    pub(super) fn next_frame(&mut self) -> Result<Option<Range<usize>>, End> {
        let waiting = self.inbox.get(self.start..).unwrap_or_default();
        let Some(header) = waiting.first_chunk::<HEADER>() else {
            let begun = !waiting.is_empty();
            if begun {
                // Otherwise what was dealt with before it would stay, and pile up.
                self.make_room(HEADER)?;
            }
            self.wait_for(begun);
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > self.max_frame {
            let limit = self.max_frame;
            let sentence = format!(
                "a frame must have at most {limit} bytes (--max-frame), got the length {length}; a frame is a length \
                 (4 bytes, big-endian) and a message"
            );
            return Err(End::Farewell("oversized-frame", sentence));
        }
        let end = self.start + HEADER + length;
        if end <= self.inbox.len() {
            self.unfinished = None;
            return Ok(Some(self.start + HEADER..end));
        }
        self.make_room(HEADER + length)?;
        self.wait_for(true);
        Ok(None)
    }

    /// The bytes of a frame.
    pub(super) fn bytes(&self, frame: Range<usize>) -> &[u8] {
        self.inbox.get(frame).unwrap_or_default()
    }

    /// The frame that ends here was dealt with.
    pub(super) fn frame_done(&mut self, end: usize) {
        self.start = end;
        if self.start >= self.inbox.len() {
            self.start = 0;
            self.inbox.clear();
            self.inbox.shrink_to(READ);
            self.reservation = None;
        }
    }

    /// Makes room for the rest of a frame of so many bytes.
    fn make_room(&mut self, length: usize) -> Result<(), End> {
        if self.start > 0 {
            self.inbox.drain(..self.start);
            self.start = 0;
            self.inbox.shrink_to(length.max(READ));
        }
        // There may be one still, for the frame before this one.
        let wanted = if length > LONG { length } else { 0 };
        if self.reservation.as_ref().map_or(0, Reservation::bytes) != wanted {
            self.reservation = None;
        }
        if let Some((budget, namespace)) = self.accounts.as_ref().filter(|_| wanted > 0)
            && self.reservation.is_none()
        {
            let reserved = budget.reserve(namespace, length);
            self.reservation = Some(reserved.map_err(|error| End::Farewell("max-memory", error.to_string()))?);
        }
        self.inbox.reserve_exact(length.saturating_sub(self.inbox.len()));
        Ok(())
    }

    fn wait_for(&mut self, rest: bool) {
        let bytes = self.inbox.len() - self.start;
        let now = Instant::now;
        self.unfinished = rest.then(|| match self.unfinished {
            Some(known) if known.bytes == bytes => known,
            Some(known) => Unfinished { progress: now(), bytes, ..known },
            None => Unfinished { since: now(), progress: now(), bytes },
        });
    }

    /// Writes what there is to write, and waits until something happens. With `read`, more may be read. Cancel safe.
    pub(super) async fn event(&mut self, read: bool) -> Result<Event, End> {
        poll_fn(|cx| self.poll_event(read, cx)).await
    }

    fn poll_event(&mut self, read: bool, cx: &mut TaskContext<'_>) -> Poll<Result<Event, End>> {
        let had_room = self.has_room();
        self.poll_flush(cx)?;
        if !had_room && self.has_room() {
            return Poll::Ready(Ok(Event::Written));
        }
        if !read && let Some(unfinished) = &mut self.unfinished {
            // While it is us who do not read, the client cannot go on.
            let now = Instant::now();
            (unfinished.since, unfinished.progress) = (now, now);
        }
        if read && let Poll::Ready(event) = self.poll_read(cx) {
            return Poll::Ready(event);
        }
        self.poll_stall(read, cx).map(Err)
    }

    /// Writes as much as the socket takes now.
    fn poll_flush(&mut self, cx: &mut TaskContext<'_>) -> Result<(), End> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let mut moved = false;
        let flushed = self.outbox.poll_write(&mut self.stream, cx, &mut moved);
        if moved || self.unread.is_none() {
            self.unread = Some(Instant::now());
        }
        match flushed {
            Poll::Ready(Ok(())) => self.unread = None,
            Poll::Ready(Err(_)) => return Err(End::Closed("broken")),
            Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Event, End>> {
        let read = match self.stream.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => self.poll_fill(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        match read {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Event::Ended)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Event::Read)),
            // A reset: the client was killed or the network cut.
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Closed("broken"))),
            Poll::Pending => {
                if self.inbox.is_empty() {
                    // Whoever waits needs no buffer.
                    self.inbox = Vec::new();
                }
                Poll::Pending
            }
        }
    }

    /// Reads as much as there is and as fits. Not `try_read_buf`: this one knows that a socket that gave less than was
    /// asked for is empty, and need not be asked again.
    fn poll_fill(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() - self.inbox.len() < HEADER {
            self.inbox.reserve_exact(READ);
        }
        pin!(self.stream.read_buf(&mut self.inbox)).poll(cx)
    }

    /// Ready when the client has made no progress for too long.
    fn poll_stall(&mut self, read: bool, cx: &mut TaskContext<'_>) -> Poll<End> {
        let unread = self.unread.map(|since| since + STALL);
        let unfinished = self.unfinished.filter(|_| read).map(Unfinished::deadline);
        let Some(deadline) = unread.into_iter().chain(unfinished).min() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(if unread == Some(deadline) {
            End::Closed("unread")
        } else {
            let stall = roundsman_protocol::time::display(STALL);
            End::Farewell("unfinished-frame", format!("a frame began and did not go on for {stall}"))
        })
    }

    /// Writes as much as the socket takes now, without waiting for it.
    pub(super) async fn flush_now(&mut self) -> Result<(), End> {
        poll_fn(|cx| Poll::Ready(self.poll_flush(cx))).await
    }

    /// Writes everything; a client that does not read is given up.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        while !self.outbox.is_empty() {
            poll_fn(|cx| match self.poll_flush(cx) {
                Ok(()) if self.outbox.is_empty() => Poll::Ready(Ok(())),
                Ok(()) => self.poll_stall(false, cx).map(Err),
                Err(end) => Poll::Ready(Err(end)),
            })
            .await?;
        }
        Ok(())
    }

    /// Says a last sentence, and sees to it that the client can read it: whether it does is up to the client.
    pub(super) async fn farewell(&mut self, last: &Outgoing) {
        let goodbye = async {
            self.put(last)?;
            self.finish().await?;
            self.listen_on().await.map_err(|_| End::Closed("broken"))
        };
        if !matches!(timeout(LINGER, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("a client did not read why its connection was closed");
        }
    }

    /// Writes everything, and says that there will be no more.
    pub(super) async fn finish(&mut self) -> Result<(), End> {
        self.flush().await?;
        self.stream.shutdown().await.map_err(|_| End::Closed("broken"))
    }

    /// Reads what the client still says, to no purpose but that its socket stays open.
    async fn listen_on(&mut self) -> io::Result<()> {
        let mut read = 0;
        while read < LINGER_BYTES {
            self.stream.readable().await?;
            self.inbox.clear();
            self.inbox.reserve(READ);
            match self.stream.try_read_buf(&mut self.inbox) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

// === impl Unfinished ===

impl Unfinished {
    fn deadline(self) -> Instant {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        (self.progress + STALL).min(self.since + STALL + PER_BYTE * bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const MOST: usize = 1_024 * 1_024;

    /// The server's end of a connection, the client's end, and the budget.
    async fn pair() -> (Wire, TcpStream, Arc<Budget>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let budget = Budget::new(64 << 20);
        let mut wire = Wire::new(listener.accept().await.unwrap().0, MOST);
        wire.switch(MOST, Codec::Json.into(), Arc::clone(&budget), Namespace::default());
        (wire, client, budget)
    }

    /// Reads until there were so many frames, and so many bytes of the next one.
    async fn read_until(wire: &mut Wire, mut frames: usize, rest: usize) {
        loop {
            while let Some(frame) = wire.next_frame().unwrap() {
                wire.frame_done(frame.end);
                frames -= 1;
            }
            if frames == 0 && wire.inbox.len() - wire.start == rest {
                return;
            }
            assert_eq!(wire.event(true).await.unwrap(), Event::Read);
        }
    }

    #[tokio::test]
    async fn frames_whose_end_comes_with_the_next_ones_beginning_leave_nothing_behind() {
        let (mut wire, mut client, _) = pair().await;
        // Half a header, time and again, and that just where the buffer ends.
        client.write_all(&[0, 0]).await.unwrap();
        read_until(&mut wire, 0, 2).await;
        for _ in 0..100 {
            let room = wire.inbox.capacity() - wire.inbox.len();
            let body = if room < HEADER { room + READ } else { room } - 6;
            let length = u16::try_from(body).unwrap().to_be_bytes();
            client.write_all(&[&length[..], &vec![b' '; body], &[0, 0]].concat()).await.unwrap();
            read_until(&mut wire, 1, 2).await;
        }
        let kept = wire.inbox.capacity();
        assert!(kept <= 4 * READ, "{kept} bytes are kept for two");
    }

    #[tokio::test]
    async fn each_long_frame_is_accounted_for_and_given_back() {
        let (mut wire, mut client, budget) = pair().await;
        let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
        let used = || budget.status(0, 0).used;
        // One that ends just before the end of the buffer, so that the next buffer is larger than it need be.
        client.write_all(&[&length(READ - 5)[..], &vec![b' '; READ - 6]].concat()).await.unwrap();
        read_until(&mut wire, 0, READ - 2).await;
        client.write_all(&[b" ", &length(LONG + 8)[..], &[b' '; 8]].concat()).await.unwrap();
        read_until(&mut wire, 1, HEADER + 8).await;
        assert_eq!(used(), (HEADER + LONG + 8) as u64);
        // Its end comes with the beginning of a longer one.
        client.write_all(&[&vec![b' '; LONG][..], &length(MOST)].concat()).await.unwrap();
        read_until(&mut wire, 1, HEADER).await;
        assert_eq!(used(), (HEADER + MOST) as u64);
        client.write_all(&[&vec![b' '; MOST][..], &length(8), b"1234"].concat()).await.unwrap();
        read_until(&mut wire, 1, HEADER + 4).await;
        assert!(wire.inbox.capacity() <= 4 * READ, "{}", wire.inbox.capacity());
        assert_eq!(used(), 0);
    }
}
