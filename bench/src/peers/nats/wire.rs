//! NATS's protocol, as much of it as request and reply need.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::error::{Context, Result};

/// Requests that wait to be written.
const QUEUE: usize = 256;

/// Asks on one connection. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct Requester {
    inbox: Arc<str>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
    requests: mpsc::Sender<Vec<u8>>,
    _tasks: Arc<JoinSet<()>>,
}

/// Who waits for which answer; the answer is its length.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<usize>>>>;

/// A message that was delivered.
struct Message {
    subject: String,
    reply_to: Option<String>,
    length: usize,
}

/// Reads what a server sends.
struct Reader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

// === impl Requester ===

impl Requester {
    pub(super) async fn connect(server: SocketAddr, number: usize) -> Result<Self> {
        let inbox: Arc<str> = Arc::from(format!("_INBOX.{}-{number}", std::process::id()));
        let (reader, mut writer) = connect(server, &format!("SUB {inbox}.* 1\r\n")).await?;
        let waiting = Waiting::default();
        let (requests, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut batch = Vec::new();
            while let Some(request) = queue.recv().await {
                batch.extend_from_slice(&request);
                while let Ok(request) = queue.try_recv() {
                    batch.extend_from_slice(&request);
                }
                if writer.write_all(&batch).await.is_err() {
                    return;
                }
                batch.clear();
            }
        });
        tasks.spawn(receive(reader, Arc::clone(&waiting)));
        Ok(Self { inbox, waiting, next: Arc::default(), requests, _tasks: Arc::new(tasks) })
    }

    /// Asks, and returns how long the answer is.
    pub(super) async fn ask(&self, subject: &str, question: &[u8]) -> io::Result<usize> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        let mut request = format!("PUB {subject} {}.{id} {}\r\n", self.inbox, question.len()).into_bytes();
        request.extend_from_slice(question);
        request.extend_from_slice(b"\r\n");
        self.requests.send(request).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(answer.await.map_err(|_| io::ErrorKind::BrokenPipe)?)
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<usize>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(mut reader: Reader, waiting: Waiting) {
    while let Ok(message) = reader.next().await {
        let id = message.subject.rsplit_once('.').and_then(|(_, id)| id.parse().ok());
        if let Some(sender) = id.and_then(|id: u64| lock(&waiting).remove(&id)) {
            // Whoever no longer waits does not want it.
            let _ = sender.send(message.length);
        }
    }
    // Those who still wait hear that nothing will come.
    lock(&waiting).clear();
}

/// Subscribes, and returns what replies for as long as it is polled.
pub(super) async fn reply(
    server: SocketAddr,
    subject: &str,
    answer: Vec<u8>,
) -> Result<impl Future<Output = io::Result<()>> + use<>> {
    let (mut reader, mut writer) = connect(server, &format!("SUB {subject} repliers 1\r\n")).await?;
    Ok(async move {
        let mut batch = Vec::new();
        loop {
            let message = reader.next().await?;
            if let Some(reply_to) = message.reply_to {
                batch.extend_from_slice(format!("PUB {reply_to} {}\r\n", answer.len()).as_bytes());
                batch.extend_from_slice(&answer);
                batch.extend_from_slice(b"\r\n");
            }
            // What has arrived already is answered in one write.
            if !reader.has_message() {
                writer.write_all(&batch).await?;
                batch.clear();
            }
        }
    })
}

/// Connects, and returns when the server has taken the subscription.
async fn connect(server: SocketAddr, subscription: &str) -> Result<(Reader, OwnedWriteHalf)> {
    let stream = TcpStream::connect(server).await.context("connecting to nats-server")?;
    stream.set_nodelay(true).context("setting nodelay")?;
    let (stream, mut writer) = stream.into_split();
    let mut reader = Reader { stream, buffer: BytesMut::with_capacity(16_384) };
    // No pings while we measure a few seconds; the server's own interval is two minutes.
    let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{subscription}PING\r\n");
    writer.write_all(hello.as_bytes()).await.context("greeting nats-server")?;
    while reader.line().await.context("greeting nats-server")? != "PONG" {}
    Ok((reader, writer))
}

// === impl Reader ===

impl Reader {
    /// The next message; everything else the server says is passed over.
    async fn next(&mut self) -> io::Result<Message> {
        loop {
            let line = self.line().await?;
            let Some(message) = line.strip_prefix("MSG ").and_then(parse) else { continue };
            while self.buffer.len() < message.length + 2 {
                self.more().await?;
            }
            self.buffer.advance(message.length + 2);
            return Ok(message);
        }
    }

    /// Whether there is a whole line to read without waiting.
    fn has_message(&self) -> bool {
        self.buffer.contains(&b'\n')
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(at + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// `SUBJECT SID [REPLY-TO] LENGTH`
fn parse(line: &str) -> Option<Message> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (subject, reply_to, length) = match fields.as_slice() {
        [subject, _, length] => (subject, None, length),
        [subject, _, reply_to, length] => (subject, Some(reply_to), length),
        _ => return None,
    };
    Some(Message {
        subject: (*subject).to_owned(),
        reply_to: reply_to.map(|reply_to| (*reply_to).to_owned()),
        length: length.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_with_and_without_a_reply_subject() {
        let message = parse("_INBOX.7-1.42 1 11").unwrap();
        assert_eq!((message.subject.as_str(), message.reply_to, message.length), ("_INBOX.7-1.42", None, 11));
        let message = parse("lookup 1 _INBOX.7-1.42 5").unwrap();
        assert_eq!((message.reply_to.as_deref(), message.length), (Some("_INBOX.7-1.42"), 5));
        assert!(parse("lookup").is_none());
    }
}
