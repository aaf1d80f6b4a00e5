//! Servers, a network that can be cut, and waiting for what must come.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use roundsman::{Check, Discovery, Error, NewInstance, Servers};
use roundsman_discovery::{Config, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{advance, pause, resume, sleep, timeout},
};

/// Nothing in these tests takes so long unless it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn server() -> Server {
    server_on("127.0.0.1:0".parse().unwrap()).await
}

/// A server that waits so long for the answer to a visit that none is late. Visits come by themselves when a connection
/// closes, and soon after one that failed.
pub(crate) async fn patient_server() -> Server {
    let any = "127.0.0.1:0".parse().unwrap();
    let store = "memory:".parse().unwrap();
    Server::start(Config { rpc: any, http: any, store, interval: HANG, timeout: HANG, ..Config::default() })
        .await
        .unwrap()
}

/// A server without memory of an earlier life.
pub(crate) async fn server_on(rpc: SocketAddr) -> Server {
    let config = Config {
        rpc,
        http: "127.0.0.1:0".parse().unwrap(),
        store: "memory:".parse().unwrap(),
        drain_deadline: Duration::from_millis(200),
        ..Config::default()
    };
    Server::start(config).await.unwrap()
}

pub(crate) async fn client(server: &Server) -> Discovery {
    connect(server.rpc_addr()).await.unwrap()
}

/// A client whose calls wait for their answers as long as it takes.
pub(crate) async fn connect(servers: impl Into<Servers>) -> Result<Discovery, Error> {
    Discovery::builder().servers(servers).timeout(HANG).connect().await
}

/// A client whose calls fail so soon, connected: however long that takes, with however many tries.
pub(crate) async fn hasty(servers: impl Into<Servers>, timeout: Duration) -> Discovery {
    let discovery = Discovery::builder().servers(servers).timeout(timeout).connect_lazy().unwrap();
    eventually("it is connected", async || discovery.connected().await.is_ok()).await;
    discovery
}

/// An instance that is handed out without being visited.
pub(crate) fn instance(service: &str, port: u16) -> NewInstance {
    NewInstance::new(service, format!("127.0.0.1:{port}")).unwrap().check(Check::none())
}

/// An address on which nobody listens.
pub(crate) async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    const PAUSE: Duration = Duration::from_millis(10);
    let waited = timeout(HANG, async {
        // In real time, so that it comes to an end while the runtime's stands still.
        for _ in 0..HANG.as_millis() / PAUSE.as_millis() {
            if condition().await {
                return true;
            }
            spawn_blocking(|| thread::park_timeout(PAUSE)).await.unwrap();
        }
        false
    });
    assert!(waited.await.unwrap_or(false), "never happened: {what}");
}

/// What must not hang.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(HANG, what).await.expect("it hangs")
}

/// The runtime's time, stopped: however busy the machine is, nothing is late. It passes only as a test says. For runtimes
/// of one thread.
pub(crate) struct StoppedClock {
    /// While a blocking task runs, the runtime does not move the time by itself.
    _hold: mpsc::Sender<()>,
}

// === impl StoppedClock ===

impl StoppedClock {
    pub(crate) fn new() -> Self {
        let (hold, held) = mpsc::channel();
        drop(spawn_blocking(move || held.recv()));
        pause();
        Self { _hold: hold }
    }

    /// What ends without any time.
    pub(crate) async fn still<T>(&self, what: impl Future<Output = T>) -> T {
        self.moving(|| None, what).await
    }

    /// What ends when time has passed, by steps.
    pub(crate) async fn passing<T>(&self, step: Duration, what: impl Future<Output = T>) -> T {
        self.moving(|| Some(step), what).await
    }

    /// What time passes for as `moves` says, which is asked every few milliseconds of real time.
    pub(crate) async fn moving<T>(
        &self,
        mut moves: impl FnMut() -> Option<Duration>,
        what: impl Future<Output = T>,
    ) -> T {
        const PAUSE: Duration = Duration::from_millis(2);
        let mut what = pin!(what);
        for _ in 0..HANG.as_millis() / PAUSE.as_millis() {
            let real = spawn_blocking(|| thread::park_timeout(PAUSE));
            tokio::select! {
                biased;
                done = &mut what => return done,
                paused = real => paused.unwrap(),
            }
            if let Some(step) = moves() {
                advance(step).await;
            }
        }
        panic!("it hangs");
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        resume();
    }
}

/// A network between client and server, with a plug.
pub(crate) struct Network {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum State {
    /// Passes everything on.
    Whole,
    /// Passes everything on, so much later in each direction. For connections made from now on.
    Slow(Duration),
    /// Keeps connections and accepts new ones, but nothing gets through: a frozen server.
    Frozen,
    /// Breaks all connections, and each new one at once.
    Cut,
}

impl Network {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (state, states) = watch::channel(State::Whole);
        let mut tasks = JoinSet::new();
        let counter = Arc::clone(&connections);
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                wires.spawn(wire(near, target, states.clone()));
            }
        });
        Self { addr, connections, state, _tasks: tasks }
    }

    pub(crate) fn become_(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn wire(near: TcpStream, target: SocketAddr, mut states: watch::Receiver<State>) {
    let begun = *states.borrow();
    let delay = match begun {
        State::Whole => Duration::ZERO,
        State::Slow(delay) => delay,
        State::Frozen | State::Cut => {
            // Holding the socket without reading is what a frozen process does.
            drop(states.wait_for(|state| *state == State::Cut).await.map(|_| ()));
            return;
        }
    };
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = TcpStream::connect(target).await.unwrap().into_split();
    let pass =
        async { tokio::join!(pass_on(&mut near_in, &mut far_out, delay), pass_on(&mut far_in, &mut near_out, delay)) };
    tokio::select! {
        _ = pass => return,
        _ = states.wait_for(|state| matches!(state, State::Frozen | State::Cut)) => {}
    }
    drop(states.wait_for(|state| *state == State::Cut).await.map(|_| ()));
}

async fn pass_on(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, delay: Duration) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}
