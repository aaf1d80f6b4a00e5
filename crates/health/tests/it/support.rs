//! Small servers that behave as they are told, and rounds that visit them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use roundsman_health::{Class, Observation, Rounds, Settings, Witness};
use roundsman_protocol::{Check, Clock, Registration, Timestamp};
use roundsman_registry::{Asked, Health, Key, Observed, Record};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

/// Longer than anything takes on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// An interval that no test lives to see end.
pub(crate) const NEVER: Duration = Duration::from_secs(3_600);
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Connections that the visitor closed.
    pub(crate) closed: AtomicUsize,
}

/// A server; dropped, it is dead: its listener and its connections are closed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// Rounds, and what came out of them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) rounds: Rounds,
    pub(crate) log: Arc<Log>,
    observations: mpsc::Receiver<Observation>,
}

/// Remembers what every visit met.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Class>>);

// === impl Seen ===

impl Seen {
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

// === impl Server ===

impl Server {
    /// A server that does `behave` with every connection: it is told the connection's number, from 0, and what it
    /// may note. A connection whose future ends is closed.
    pub(crate) async fn start<F, B>(behave: B) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        B: Fn(usize, TcpStream, Arc<Seen>) -> F + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), behave)
    }

    pub(crate) fn on<F, B>(listener: TcpListener, behave: B) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        B: Fn(usize, TcpStream, Arc<Seen>) -> F + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = noted.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(behave(number, stream, Arc::clone(&noted)));
            }
        });
        Self { addr, seen, _tasks: tasks }
    }

    /// A server that gives the same answer to every request, for as long as the connection lasts.
    pub(crate) async fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |_, stream, seen| answer_all(stream, seen, answer)).await
    }

    /// The same at an address where another server was before.
    pub(crate) async fn answering_at(addr: SocketAddr, answer: &'static [u8]) -> Self {
        Self::on(TcpListener::bind(addr).await.unwrap(), move |_, stream, seen| answer_all(stream, seen, answer))
    }

    /// A server that reads and never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(|_, mut stream, seen| async move { while request(&mut stream, &seen).await {} }).await
    }
}

/// Reads a request. `false`: the visitor closed the connection.
pub(crate) async fn request(stream: &mut TcpStream, seen: &Seen) -> bool {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => {
                seen.closed.fetch_add(1, Ordering::SeqCst);
                return false;
            }
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("GET /health HTTP/1.1\r\nHost: "), "{text}");
    assert!(text.contains("\r\nUser-Agent: roundsman/"), "{text}");
    seen.requests.fetch_add(1, Ordering::SeqCst);
    true
}

pub(crate) async fn answer_all(mut stream: TcpStream, seen: Arc<Seen>, answer: &'static [u8]) {
    while request(&mut stream, &seen).await {
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// An address on which nobody listens.
pub(crate) async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

// === impl Watched ===

impl Watched {
    pub(crate) fn start(settings: Settings) -> Self {
        let (sender, observations) = mpsc::channel(1_024);
        let log = Arc::new(Log::default());
        let witness: Arc<dyn Witness> = Arc::<Log>::clone(&log);
        let clock = Clock::new(|| Timestamp::from_millis(1_000_000_000));
        Self { rounds: Rounds::start(settings, clock, sender, witness), log, observations }
    }

    /// What is observed next.
    pub(crate) async fn next(&mut self) -> Observation {
        timeout(PATIENCE, self.observations.recv()).await.expect("nothing is observed").expect("the rounds are over")
    }

    /// The next change of health, and what is said about it.
    pub(crate) async fn flip(&mut self) -> (Health, Class, String) {
        match self.next().await {
            Observation::Health { health, class, reason, .. } => (health, class, reason.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// Observations that are there already.
    pub(crate) fn pending(&mut self) -> Vec<Observation> {
        std::iter::from_fn(|| self.observations.try_recv().ok()).collect()
    }

    /// Stops the rounds, and gives what had been observed but not read.
    pub(crate) async fn stop(mut self) -> Vec<Observation> {
        timeout(PATIENCE, self.rounds.stop()).await.expect("a visitor does not stop");
        let mut rest = Vec::new();
        while let Some(observation) =
            timeout(PATIENCE, self.observations.recv()).await.expect("somebody still holds the queue")
        {
            rest.push(observation);
        }
        assert_eq!(Arc::strong_count(&self.log), 1, "somebody still holds the witness");
        rest
    }
}

impl Log {
    pub(crate) fn all(&self) -> Vec<Class> {
        self.0.lock().unwrap().clone()
    }
}

impl Witness for Log {
    fn visited(&self, class: Class, _: Duration) {
        self.0.lock().unwrap().push(class);
    }
}

pub(crate) fn settings() -> Settings {
    Settings { interval: NEVER, timeout: PATIENCE, start_deadline: NEVER, probation: NEVER, ..Settings::default() }
}

pub(crate) fn key(id: &str) -> Key {
    Key { namespace: "default".parse().unwrap(), id: id.parse().unwrap() }
}

pub(crate) fn record(id: &str, address: &str, check: Check, health: Health) -> Arc<Record> {
    let mut registration = Registration::new("product".parse().unwrap(), address.parse().unwrap());
    registration.check = check;
    let record = Record::registered(&key(id), &registration, 1, Timestamp::from_millis(1_000_000_000));
    Arc::new(in_health(health, &record))
}

pub(crate) fn in_health(health: Health, record: &Record) -> Record {
    Record { observed: Observed { health, ..record.observed.clone() }, ..record.clone() }
}

/// The same, in another life.
pub(crate) fn in_life(incarnation: u64, record: &Record) -> Arc<Record> {
    Arc::new(Record { asked: Asked { incarnation, ..record.asked }, ..record.clone() })
}

pub(crate) fn http(id: &str, addr: SocketAddr, health: Health) -> Arc<Record> {
    record(id, &addr.to_string(), Check::default(), health)
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}
