//! Starting and stopping: in which order the parts come up and go down.

use std::{net::SocketAddr, sync::Arc};

use roundsman_health::{Rounds, Settings, TargetPolicy};
use roundsman_protocol::Clock;
use roundsman_registry::{Limits, Record, Registry, registry::LOG_CAPACITY};
use roundsman_store::{Durable, Replicator, Store};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    context::{Bound, Context, Parts},
    doors::{http, rpc},
    error::ServeError,
    files, follower,
    loading::{self, Loaded},
    memory::Division,
    metrics::Meters,
    offload::Offload,
    store_state::StoreState,
    writer::{Audit, Inputs, Journal, Task, Tombstones, Troubled, Writer},
};

/// How many observations may wait for the writer before visits wait.
const OBSERVATIONS: usize = 8_192;
/// How often what nobody needs any more is given back.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(1);
/// How many changes of other servers may wait for the writer.
const FOREIGN: usize = 1_024;

/// A running server.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    bound: Bound,
    /// The parts that run for as long as the server does. One that ends early is a bug.
    parts: JoinSet<&'static str>,
    stops: Stops,
}

/// One token for each step of stopping.
#[derive(Debug, Default)]
struct Stops {
    rpc: CancellationToken,
    upkeep: CancellationToken,
    followers: CancellationToken,
    writer: CancellationToken,
    http: CancellationToken,
}

impl Server {
    /// Opens the HTTP door, loads the store (for as long as it takes), begins the rounds, opens the RPC door.
    /// Returns once the server serves.
    ///
    /// # Errors
    /// When a door cannot be opened or the store can never be used.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let http_listener = bind("http", config.http).await?;
        let rpc_listener = bind("rpc", config.rpc).await?;
        let bound = Bound { rpc: local(&rpc_listener)?, http: local(&http_listener)? };
        let name = server_name();
        let store = config.store.open(config.probation, &name);
        let offload = Offload::start();
        let offload = offload.map_err(|source| ServeError::System { what: "cannot start a thread", source })?;
        let (context, inputs, foreign) = assemble(config, name, store.as_ref(), offload);
        context.bound.get_or_init(|| bound);
        let (mut parts, stops) = (JoinSet::new(), Stops::default());
        let door = http::serve(http_listener, Arc::clone(&context), stops.http.clone());
        parts.spawn(async move {
            door.await;
            "HTTP door"
        });

        let (state, strict) = (&context.store_state, context.config.strict);
        let Loaded { records, position } = loading::load(store.as_ref(), &context.registry, state, strict).await?;
        look_after(&context, &records);
        drop(records);
        let following = stops.followers.clone().run_until_cancelled_owned(follower::follow(
            Arc::clone(&store) as Arc<dyn Replicator>,
            position,
            foreign,
        ));
        parts.spawn(async move {
            following.await;
            "follower"
        });
        let writing = task(&context, store).run(inputs, stops.writer.clone());
        parts.spawn(async move {
            writing.await;
            "writer"
        });
        let door = rpc::serve(rpc_listener, Arc::clone(&context), stops.rpc.clone());
        parts.spawn(async move {
            door.await;
            "RPC door"
        });
        let upkeep = stops.upkeep.clone().run_until_cancelled_owned(upkeep(Arc::clone(&context)));
        parts.spawn(async move {
            upkeep.await;
            "upkeep"
        });
        context.set_ready(true);
        tracing::info!(rpc.addr = %bound.rpc, http.addr = %bound.http, store = %context.config.store, server = context.server, "serving");
        Ok(Self { context, bound, parts, stops })
    }

    /// Where the RPC door listens.
    #[must_use]
    pub fn rpc_addr(&self) -> SocketAddr {
        self.bound.rpc
    }

    /// Where the HTTP door listens.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.bound.http
    }

    /// Waits for a part to end that never should.
    pub(crate) async fn broken(&mut self) -> ServeError {
        let ended = self.parts.join_next().await;
        ServeError::PartEnded(ended.and_then(Result::ok).unwrap_or("task that panicked"))
    }

    /// Stops: no new calls, those in flight are answered, what was observed is written.
    pub async fn stop(mut self) {
        self.context.set_ready(false);
        self.stops.rpc.cancel();
        self.ended("RPC door").await;
        self.context.rounds.clone().stop().await;
        self.stops.upkeep.cancel();
        self.ended("upkeep").await;
        self.stops.followers.cancel();
        self.ended("follower").await;
        self.stops.writer.cancel();
        self.ended("writer").await;
        self.stops.http.cancel();
        self.ended("HTTP door").await;
        tracing::info!("stopped");
    }

    async fn ended(&mut self, part: &'static str) {
        while let Some(ended) = self.parts.join_next().await {
            match ended {
                Ok(ended) if ended == part => return,
                Ok(other) => tracing::error!(part = other, "ended out of turn"),
                Err(error) => tracing::error!(%error, "a part of the server failed"),
            }
        }
    }
}

fn assemble(
    config: Config,
    server: String,
    store: &dyn Store,
    offload: Offload,
) -> (Arc<Context>, Inputs, mpsc::Sender<follower::Heard>) {
    let clock = Clock::system();
    let meters = Meters::new();
    let memory = Division::of(config.max_memory);
    let registry = Arc::new(Registry::with_logs(fastrand::u64(1..1 << 53), LOG_CAPACITY, memory.logs));
    let store_state = Arc::new(StoreState::new(store.describe(), clock.clone()));
    let (writer, requests) = Writer::new(config.max_queue);
    let (observe, observations) = mpsc::channel(OBSERVATIONS);
    let (foreign_sender, foreign) = mpsc::channel(FOREIGN);
    let rounds = Rounds::start(settings(&config), clock.clone(), observe, Arc::clone(&meters) as Arc<_>);
    let parts = Parts { config, clock, server, registry, rounds, writer, store_state, meters, memory, offload };
    let context = Context::new(parts);
    (context, Inputs { requests, observations, foreign }, foreign_sender)
}

fn settings(config: &Config) -> Settings {
    let taken = config.max_connections + config.max_http_connections + http::BESIDE;
    let shares = files::shares(config.max_kept, config.max_visits, taken);
    Settings {
        interval: config.interval,
        timeout: config.timeout,
        failures: config.failures,
        probation: config.probation,
        start_deadline: config.start_deadline,
        brake_limit: config.brake_limit,
        max_visits: shares.visits,
        asking: Settings::default().asking,
        max_kept: shares.kept,
        targets: policy(config),
        name_servers: None,
        user_agent: concat!("roundsman/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// Which addresses the rounds may visit.
pub(crate) fn policy(config: &Config) -> TargetPolicy {
    if config.allow_targets.is_empty() {
        TargetPolicy::default()
    } else {
        TargetPolicy::only(config.allow_targets.clone())
    }
}

/// Sends the rounds to look after what the store held.
fn look_after(context: &Context, records: &[Arc<Record>]) {
    if !records.is_empty() {
        tracing::info!(instances = records.len(), "loaded");
    }
    context.rounds.track_stored(records);
}

/// Gives back what nobody needs any more.
async fn upkeep(context: Arc<Context>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        context.encodings.tidy();
    }
}

fn task(context: &Arc<Context>, store: Arc<dyn Durable>) -> Task {
    Task {
        registry: Arc::clone(&context.registry),
        store,
        rounds: context.rounds.clone(),
        clock: context.clock.clone(),
        meters: Arc::clone(&context.meters),
        state: Arc::clone(&context.store_state),
        limits: Limits {
            max_instances: context.config.max_instances,
            max_instances_per_namespace: context.config.max_instances_per_namespace,
            max_namespaces: context.config.max_namespaces,
            max_bytes: context.memory.instances,
            max_bytes_per_namespace: context.memory.instances / 4 * 3,
        },
        unwritten: std::collections::HashMap::new(),
        refuse_until: None,
        full: false,
        tombstones: Tombstones::default(),
        audit: Audit::default(),
        journal: Journal::new(&context.server),
        troubled: Troubled::default(),
        gap: None,
    }
}

async fn bind(door: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { door, addr, source })?;
    warn_if_exposed(door, local(&listener)?);
    Ok(listener)
}

/// Says aloud that others than this machine can get in.
fn warn_if_exposed(door: &'static str, addr: SocketAddr) {
    if addr.ip().to_canonical().is_loopback() {
        return;
    }
    let what = if door == "rpc" { "register, drain and deregister everything" } else { "read everything" };
    tracing::warn!(
        door,
        %addr,
        "EXPOSED: whoever reaches this address can {what}, since there is no authentication yet. \
         Listen only on a trusted network or behind a firewall, or on 127.0.0.1 (--{door})"
    );
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::System { what: "cannot ask for the bound address", source })
}

/// A name that tells this run of this server from every other.
fn server_name() -> String {
    format!("roundsman-{:08x}", fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(door: &'static str, addr: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || warn_if_exposed(door, addr.parse().unwrap()));
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_door_that_others_can_reach_is_warned_of_once() {
        for addr in ["0.0.0.0:5555", "[::]:5555", "10.0.0.7:5555", "[::ffff:10.0.0.7]:5555"] {
            let log = logged("rpc", addr);
            assert_eq!(log.lines().count(), 1, "{log}");
            for part in ["WARN", "deregister", "no authentication", "firewall", "--rpc", addr] {
                assert!(log.contains(part), "{part}: {log}");
            }
        }
        let log = logged("http", "0.0.0.0:5556");
        assert!(log.contains("read everything") && log.contains("--http"), "{log}");
    }

    #[test]
    fn a_door_on_loopback_is_not_warned_of() {
        for addr in ["127.0.0.1:5555", "127.8.0.1:1", "[::1]:5555", "[::ffff:127.0.0.1]:5555"] {
            assert_eq!(logged("rpc", addr), "");
        }
    }
}
