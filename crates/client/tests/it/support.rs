//! Servers, a network that can be cut, and waiting for what must come.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use roundsman::{Check, Discovery, NewInstance};
use roundsman_discovery::{Config, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Nothing in these tests takes so long unless it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn server() -> Server {
    server_on("127.0.0.1:0".parse().unwrap()).await
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
    Discovery::connect(server.rpc_addr()).await.unwrap()
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
    let waited = timeout(HANG, async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// What must not hang.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(HANG, what).await.expect("it hangs")
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
