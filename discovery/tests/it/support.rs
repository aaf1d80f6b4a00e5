//! A server in this process, a raw client, and instances that answer or do not.

use std::{net::SocketAddr, time::Duration};

use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// For whatever must happen but may take its time on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) fn config(store: &str) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // Visits have the whole time between two, so that none is late on a busy machine.
    let timeout = Config::default().interval;
    Config { rpc: any, http: any, store: store.parse().unwrap(), timeout, ..Config::default() }
}

pub(crate) async fn server() -> Server {
    Server::start(config("memory:")).await.unwrap()
}

/// A client that writes its JSON itself.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    next: u64,
}

impl Raw {
    /// Connects without a word.
    pub(crate) async fn silent(server: &Server) -> Self {
        Self::silent_at(server.rpc_addr()).await
    }

    /// The same from where the server is not at hand.
    pub(crate) async fn silent_at(server: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(server).await.unwrap(), next: 0 }
    }

    /// Connects and greets.
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::connect_to(server, "default").await
    }

    pub(crate) async fn connect_to(server: &Server, namespace: &str) -> Self {
        Self::greeting(server, &json!({"roundsman": 2, "codec": "json", "namespace": namespace})).await
    }

    /// Connects and greets in today's version, which has more methods.
    pub(crate) async fn connect_today(server: &Server) -> Self {
        Self::greeting(server, &json!({"roundsman": 3, "codec": "json"})).await
    }

    async fn greeting(server: &Server, hello: &Value) -> Self {
        let mut raw = Self::silent(server).await;
        raw.send(hello).await;
        let welcome = raw.receive().await.unwrap();
        assert_eq!(welcome["ok"], true, "{welcome}");
        raw
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_bytes(message.to_string().as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // In one piece: the kernel would hold the second one back until the first is confirmed.
        let frame = [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Sends the beginning of a frame of this length.
    pub(crate) async fn send_begin(&mut self, length: u32, bytes: &[u8]) {
        self.stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await.unwrap();
    }

    /// The next frame; `None` when the server closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Value> {
        timeout(SOON, self.receive_late()).await.expect("the server neither answered nor hung up")
    }

    /// The same, however long it takes.
    pub(crate) async fn receive_late(&mut self) -> Option<Value> {
        let length = self.stream.read_u32().await.ok()?;
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes).await.ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Sends a call and returns its id.
    pub(crate) async fn begin(&mut self, request: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.send(&json!({"Request": {"id": id, "message": request}})).await;
        id
    }

    /// Calls, and returns what the method answered: `{"Ok": …}` or `{"Err": …}`.
    pub(crate) async fn call(&mut self, request: Value) -> Value {
        let id = self.begin(request).await;
        let answer = self.receive().await.expect("the server hung up");
        assert_eq!(answer["request_id"], id);
        unwrap(answer["message"].clone())
    }

    pub(crate) async fn register(&mut self, registration: Value) -> Value {
        self.call(json!({"Register": {"registration": registration}})).await
    }

    pub(crate) async fn get(&mut self, service: &str) -> Value {
        self.call(json!({"Get": {"service": service}})).await
    }

    /// Asks until the answer is right.
    pub(crate) async fn until(&mut self, request: Value, right: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let answer = self.call(request.clone()).await;
                if right(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, asked).await.unwrap_or_else(|_| panic!("never came true: {request}"))
    }

    /// All instances of a service, those on probation included, with their history.
    pub(crate) fn list(service: &str) -> Value {
        json!({"List": {"query": {"services": [service], "scope": "all", "history": true}}})
    }
}

/// `{"Ok": {"Get": X}}` is X; what was refused before it reached a method stays as it is.
fn unwrap(message: Value) -> Value {
    match message.get("Ok").and_then(Value::as_object).and_then(|ok| ok.values().next()) {
        Some(answer) => answer.clone(),
        None => message,
    }
}

/// An instance that answers every request with 200, on connections it keeps open. Dropping it closes everything, as a killed process does.
pub(crate) struct Healthy {
    pub(crate) addr: SocketAddr,
    tasks: JoinSet<()>,
}

impl Healthy {
    pub(crate) async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Returns once nobody listens any more and every connection is closed.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) async fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream));
            }
        });
        Self { addr, tasks }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 || stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// What the HTTP door answers.
pub(crate) async fn page(server: &Server, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.http_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a metric, such as `roundsman_rpc_closed_total{reason="garbage"}`.
pub(crate) async fn metric(server: &Server, name: &str) -> f64 {
    let (_, page) = page(server, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until a metric has at least this value.
pub(crate) async fn metric_reaches(server: &Server, name: &str, value: f64) {
    let reached = async {
        while metric(server, name).await < value {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{name} never reached {value}"));
}
