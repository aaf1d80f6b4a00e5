//! The least that answers `GET /health`, and any other request: fixed bytes on a kept connection.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::BytesMut;
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::args::{Manner, Puts};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno";
const FAULT: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno";
const END: &[u8] = b"\r\n\r\n";

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// How often.
    pub(super) times: Cell<u64>,
    /// The highest number that was asked for, as in `GET /17` or `POST /17`.
    pub(super) number: Cell<u64>,
    /// Whether the answer is a 503 for now.
    pub(super) failing: Cell<bool>,
    /// How often something else than its health.
    pub(super) calls: Cell<u64>,
    /// How that is answered.
    pub(super) manner: Manner,
}

// === impl Asked ===

impl Asked {
    /// What a request is answered with; `None` where its connection is reset instead.
    async fn answer(&self, request: &[u8]) -> Option<&'static [u8]> {
        self.times.set(self.times.get() + 1);
        self.number.set(self.number.get().max(number(request).unwrap_or_default()));
        if self.failing.get() {
            return Some(REFUSAL);
        }
        if request.starts_with(b"GET /health") {
            return Some(ANSWER);
        }
        self.calls.set(self.calls.get() + 1);
        if self.manner.delay > 0 {
            sleep(Duration::from_millis(self.manner.delay)).await;
        }
        match (request.starts_with(b"PUT "), self.manner.puts) {
            (true, Puts::Reset) => None,
            (true, Puts::Refused) => Some(FAULT),
            _ => Some(ANSWER),
        }
    }
}

/// Accepts and answers, for ever; notes what is asked. Must run in a `LocalSet`.
pub(super) async fn serve(listener: TcpListener, asked: Rc<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn_local(answer(stream, Rc::clone(&asked)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, asked: Rc<Asked>) {
    loop {
        // Nothing is kept between requests: there may be ten thousand of us.
        let mut request = BytesMut::new();
        while !request.ends_with(END) {
            // Readable first, so that no buffer lies idle while nothing comes.
            if stream.readable().await.is_err() {
                return;
            }
            request.reserve(512);
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                return;
            }
        }
        let Some(answer) = asked.answer(&request).await else {
            // Without it the kernel would say goodbye. That it cannot be set changes no more than that.
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
            return;
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn number(request: &[u8]) -> Option<u64> {
    let path = request.split(|byte| *byte == b' ').nth(1)?.strip_prefix(b"/")?;
    std::str::from_utf8(path).ok()?.parse().ok()
}
