//! A product instance that is healthy and misbehaves.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Breaks the connection in which it is asked to sell, the first time.
    BreaksOnce,
    /// Answers a request to sell with something that is no product.
    SellsNonsense,
    /// Takes the request to sell and never answers it.
    NeverSells,
    /// None.
    Behaves,
}

/// What it was asked for.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// The keys of the sales.
    pub(crate) sales: Vec<String>,
    /// The keys of the undos.
    pub(crate) undos: Vec<String>,
    /// The traces of the sales.
    pub(crate) traces: Vec<String>,
}

/// The head of a request, as far as it matters.
#[derive(Default)]
struct Head {
    method: String,
    key: String,
    trace: String,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, manners, Arc::clone(&shared)));
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, manners: Manners, seen: Arc<Mutex<Seen>>) {
    let mut stream = BufReader::new(stream);
    while let Some(Head { method, key, trace }) = request(&mut stream).await {
        let body = match method.as_str() {
            "PUT" => {
                let sales = {
                    let mut seen = seen.lock().unwrap();
                    seen.sales.push(key);
                    seen.traces.push(trace);
                    seen.sales.len()
                };
                match manners {
                    Manners::BreaksOnce if sales == 1 => return,
                    Manners::BreaksOnce | Manners::Behaves => r#"{"id":"aaa","name":"apple","quantity":9}"#,
                    Manners::SellsNonsense => r#"{"id":7,"name":["apple"]}"#,
                    Manners::NeverSells => std::future::pending().await,
                }
            }
            "DELETE" => {
                seen.lock().unwrap().undos.push(key);
                "{}"
            }
            _ => "{}",
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The head of the next request.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Some(head);
        }
        if head.method.is_empty() {
            head.method = line.split(' ').next()?.to_ascii_uppercase();
        } else if let Some(value) = line.strip_prefix("idempotency-key: ") {
            head.key = value.to_owned();
        } else if let Some(value) = line.strip_prefix("traceparent: ") {
            head.trace = value.to_owned();
        }
    }
}
