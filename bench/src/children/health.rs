//! The least that answers `GET /health`: fixed bytes on a kept connection.

use std::{cell::Cell, rc::Rc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const END: &[u8] = b"\r\n\r\n";

/// Accepts and answers, for ever; counts the answers. Must run in a `LocalSet`.
pub(super) async fn serve(listener: TcpListener, answers: Rc<Cell<u64>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn_local(answer(stream, Rc::clone(&answers)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, answers: Rc<Cell<u64>>) {
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
        answers.set(answers.get() + 1);
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}
