//! The connection under an HTTP conversation, with the patience that it deserves: a head must come
//! in time, and an answer must be read on. Time counts from the last progress, so that a steady
//! slow reader is not cut off.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::crowd::Seat;

/// Less than this in [`Patience::unread`] is no progress.
const PROGRESS: usize = 4 * 1_024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a head, or from the beginning of the connection, to the head's end.
    head: Duration,
    /// Without a request, between two of them.
    idle: Duration,
    /// In which [`PROGRESS`] must be made when an answer is not read as fast as it is written.
    unread: Duration,
}

/// A stream that is given up when the client is too slow.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    seat: Arc<Seat>,
    patience: Patience,
    /// No request was answered yet.
    fresh: bool,
    /// A part of a head has come, and nothing was written since.
    partial: bool,
    reading: Timer,
    writing: Timer,
    /// Bytes taken by the client since the timer for writing was set.
    moved: usize,
    fault: Option<&'static str>,
}

/// A deadline, when there is one. The timer behind it is made at its first use and used again.
#[derive(Debug, Default)]
struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

// === impl Patience ===

impl Patience {
    pub(super) const CALLER: Self =
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(60), unread: Duration::from_secs(10) };
    pub(super) const GUEST: Self =
        Self { head: Duration::from_secs(2), idle: Duration::from_secs(2), unread: Duration::from_secs(2) };
}

// === impl Line ===

impl<S> Line<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>, patience: Patience) -> Self {
        let mut reading = Timer::default();
        reading.set(patience.head);
        let (fresh, partial, writing, moved, fault) = (true, false, Timer::default(), 0, None);
        Self { stream, seat, patience, fresh, partial, reading, writing, moved, fault }
    }

    /// Why it was given up, as metrics name it.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    fn heard(&mut self) {
        if self.seat.is_waiting() && !self.partial {
            self.partial = true;
            if !self.fresh {
                self.reading.set(self.patience.head);
            }
        }
    }

    /// What is written so far was taken: either the answer is complete or there was none.
    fn flushed(&mut self) {
        self.writing.clear();
        if !self.seat.is_serving() && !self.seat.is_waiting() {
            self.seat.wait();
            (self.fresh, self.partial) = (false, false);
            self.reading.set(self.patience.idle);
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(taken)) => {
                self.partial = false;
                self.moved = self.moved.saturating_add(taken);
                self.seat.busy();
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.seat.stall();
                loop {
                    if self.writing.deadline.is_none() {
                        self.moved = 0;
                        self.writing.set(self.patience.unread);
                    }
                    if !self.writing.is_over(cx) {
                        break;
                    }
                    if self.moved < PROGRESS {
                        return Poll::Ready(Err(self.give_up("unread")));
                    }
                    self.writing.clear();
                }
            }
        }
        polled
    }

    fn give_up(&mut self, reason: &'static str) -> io::Error {
        self.fault = Some(reason);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

impl Line<TcpStream> {
    /// The last words to a client that has said something and was not answered. To others they
    /// would be the answer to their next request.
    pub(super) fn say_last(&self, words: &str) {
        if self.partial {
            last_words(&self.stream, words);
        }
    }
}

/// Says something on a connection that is closed then. A courtesy: it waits for nobody.
pub(super) fn last_words(stream: &TcpStream, words: &str) {
    if let Err(error) = stream.try_write(words.as_bytes()) {
        tracing::debug!(%error, "a client that is turned away cannot be told why");
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.heard();
        }
        if polled.is_pending() && this.seat.is_waiting() && this.reading.is_over(cx) {
            let reason = if this.fresh || this.partial { "head-timeout" } else { "idle" };
            return Poll::Ready(Err(this.give_up(reason)));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            this.flushed();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

// === impl Timer ===

impl Timer {
    fn set(&mut self, after: Duration) {
        self.deadline = Some(Instant::now() + after);
    }

    fn clear(&mut self) {
        self.deadline = None;
    }

    /// Whether the deadline has passed; if not, the task is woken when it has.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests;
