//! The least that answers `GET /health`, and any other request: fixed bytes on a kept connection.

use std::{cell::Cell, rc::Rc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno";
const END: &[u8] = b"\r\n\r\n";

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// How often.
    pub(super) times: Cell<u64>,
    /// The highest number that was asked for, as in `GET /17`.
    pub(super) number: Cell<u64>,
    /// Whether the answer is a 503 for now.
    pub(super) failing: Cell<bool>,
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
        asked.times.set(asked.times.get() + 1);
        asked.number.set(asked.number.get().max(number(&request).unwrap_or_default()));
        let answer = if asked.failing.get() { REFUSAL } else { ANSWER };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn number(request: &[u8]) -> Option<u64> {
    let path = request.strip_prefix(b"GET /")?.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(path).ok()?.parse().ok()
}
