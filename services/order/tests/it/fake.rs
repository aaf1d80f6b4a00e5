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
    /// Takes the request to sell and never answers it.
    NeverSells,
}

/// The keys of the sales and of the undos that it was asked for.
type Seen = (Vec<String>, Vec<String>);

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
    while let Some((method, key)) = request(&mut stream).await {
        let body = match method.as_str() {
            "PUT" => {
                let sales = {
                    let mut seen = seen.lock().unwrap();
                    seen.0.push(key);
                    seen.0.len()
                };
                match manners {
                    Manners::BreaksOnce if sales == 1 => return,
                    Manners::BreaksOnce => r#"{"id":"aaa","name":"apple","quantity":9}"#,
                    Manners::NeverSells => std::future::pending().await,
                }
            }
            "DELETE" => {
                seen.lock().unwrap().1.push(key);
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

/// The method and the idempotency key of the next request.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut method, mut key) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some((method, key));
        }
        if method.is_empty() {
            method = line.split(' ').next()?.to_owned();
        } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("idempotency-key: ") {
            key = value.to_owned();
        }
    }
}
