//! Instances of a service that behave in all the ways in which instances misbehave, written by hand on plain sockets.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use roundsman::{Discovery, Registration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use crate::support::{HANG, StoppedClock, instance};

/// What a backend does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// 200, with the method and the path in the body.
    Well,
    /// This status.
    Status(u16),
    /// 500 to every third, 200 to the others.
    EveryThird,
    /// No answer, ever.
    Hang,
    /// The head, half of the body, then a reset.
    ResetInBody,
    /// A reset in place of an answer.
    Reset,
    /// Something that is not HTTP.
    Garbage,
    /// So many bytes.
    Long(usize),
    /// The head at once, then a byte each so often.
    Slow(Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// One instance.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    manner: Mutex<Manner>,
    seen: Mutex<Vec<Seen>>,
    /// Connections that are open.
    open: AtomicUsize,
    /// Requests that were left hanging.
    hung: AtomicUsize,
}

/// Calls that wait for their answers as long as it takes.
pub(crate) fn patient(discovery: &Discovery, service: &str) -> roundsman::http::Service {
    discovery.http(service).timeout(HANG).try_timeout(HANG)
}

/// Backends of one service and their registrations.
pub(crate) struct Service {
    pub(crate) backends: Vec<Backend>,
    pub(crate) registrations: Vec<Registration>,
}

// === impl Seen ===

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

// === impl Service ===

impl Service {
    /// Registers one instance of `product` for each manner, with ids `i0`, `i1`, …
    pub(crate) async fn start(discovery: &Discovery, manners: &[Manner]) -> Self {
        Self::start_as("product", discovery, manners).await
    }

    /// The same under another name.
    pub(crate) async fn start_as(name: &str, discovery: &Discovery, manners: &[Manner]) -> Self {
        let (mut backends, mut registrations) = (Vec::new(), Vec::new());
        for (n, manner) in manners.iter().enumerate() {
            let backend = Backend::start(*manner).await;
            let new = instance(name, backend.addr.port()).id(format!("i{n}")).unwrap();
            registrations.push(discovery.register(new).await.unwrap());
            backends.push(backend);
        }
        Self { backends, registrations }
    }

    /// Makes a call for which no time passes, but as much as its caller has patience whenever it is left hanging.
    pub(crate) async fn hanging<T>(
        &self,
        clock: &StoppedClock,
        patience: Duration,
        call: impl Future<Output = T>,
    ) -> T {
        let hung = || self.backends.iter().map(|backend| backend.shared.hung.load(Ordering::Acquire)).sum::<usize>();
        let mut before = hung();
        // A millisecond more, the timer's precision.
        let moves = || {
            (hung() > before).then(|| {
                before += 1;
                patience + Duration::from_millis(1)
            })
        };
        clock.moving(moves, call).await
    }

    /// How many requests came in all.
    pub(crate) fn count(&self) -> usize {
        self.backends.iter().map(|backend| backend.seen().len()).sum()
    }
}

// === impl Backend ===

impl Backend {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            hung: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        let ours = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&ours);
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::AcqRel);
                    serve(stream, &shared).await;
                    shared.open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self { addr, shared, _tasks: tasks }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }
}

/// Until the connection ends, one way or another.
async fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let seen = read(&mut stream, &mut buffer).await?;
        let said = format!("{} of {}", seen.line, stream.local_addr().ok()?.port());
        let nth = {
            let mut all = shared.seen.lock().unwrap();
            all.push(seen);
            all.len()
        };
        let manner = *shared.manner.lock().unwrap();
        match manner {
            Manner::EveryThird if nth.is_multiple_of(3) => answer(&mut stream, 500, "it is the third").await?,
            Manner::Well | Manner::EveryThird => answer(&mut stream, 200, &said).await?,
            Manner::Status(status) => answer(&mut stream, status, &said).await?,
            Manner::Hang => {
                shared.hung.fetch_add(1, Ordering::AcqRel);
                // Until the caller hangs up.
                drop(stream.read(&mut [0; 1]).await);
                return None;
            }
            Manner::ResetInBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it").await.ok()?;
                // The caller has read that much, in real time.
                spawn_blocking(|| thread::park_timeout(Duration::from_millis(10))).await.ok()?;
                stream.set_zero_linger().ok()?;
                return None;
            }
            Manner::Reset => {
                stream.set_zero_linger().ok()?;
                return None;
            }
            Manner::Garbage => {
                stream.write_all(b"220 mail.example.com ESMTP\r\n\r\n").await.ok()?;
                return None;
            }
            Manner::Long(bytes) => answer(&mut stream, 200, &"x".repeat(bytes)).await?,
            Manner::Slow(pause) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.ok()?;
                loop {
                    stream.write_all(b"1\r\nx\r\n").await.ok()?;
                    sleep(pause).await;
                }
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
}

/// Reads one request.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(stream, buffer).await?;
    };
    let head: Vec<u8> = buffer.drain(..end + 4).collect();
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<_> =
        lines.filter_map(|line| line.split_once(": ")).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut seen = Seen { line, headers, body: Vec::new() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    seen.body = buffer.drain(..length).collect();
    if seen.header("transfer-encoding") == Some("chunked") {
        loop {
            let chunk = chunk(stream, buffer).await?;
            if chunk.is_empty() {
                break;
            }
            seen.body.extend(chunk);
        }
    }
    Some(seen)
}

/// Reads one chunk; the last one is empty.
async fn chunk(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = loop {
        if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
            break end;
        }
        more(stream, buffer).await?;
    };
    let head: Vec<u8> = buffer.drain(..end + 2).collect();
    let length = usize::from_str_radix(str::from_utf8(&head).ok()?.trim(), 16).ok()?;
    while buffer.len() < length + 2 {
        more(stream, buffer).await?;
    }
    let chunk = buffer.drain(..length).collect();
    buffer.drain(..2);
    Some(chunk)
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(buffer).await.ok()? > 0).then_some(())
}
