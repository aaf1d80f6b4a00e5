//! Starting and stopping: in which order the parts come up and go down.

use std::{net::SocketAddr, sync::Arc};

use roundsman_health::{Rounds, Settings, TargetPolicy};
use roundsman_protocol::Clock;
use roundsman_registry::{Limits, Registry};
use roundsman_store::{Position, Snapshot, Store};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    context::{Bound, Context, Parts},
    doors::{http, rpc},
    error::ServeError,
    files, follower, loading,
    metrics::Meters,
    store_state::StoreState,
    writer::{Audit, Inputs, Task, Tombstones, Writer},
};

/// How many observations may wait for the writer before visits wait.
const OBSERVATIONS: usize = 8_192;
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
        let (context, inputs, foreign) = assemble(config, name, store.as_ref());
        context.bound.get_or_init(|| bound);
        let (mut parts, stops) = (JoinSet::new(), Stops::default());
        let door = http::serve(http_listener, Arc::clone(&context), stops.http.clone());
        parts.spawn(async move {
            door.await;
            "HTTP door"
        });

        let snapshot = loading::load(store.as_ref(), &context.store_state, context.config.strict).await?;
        let position = take_in(&context, snapshot);
        let following =
            stops.followers.clone().run_until_cancelled_owned(follower::follow(Arc::clone(&store), position, foreign));
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
) -> (Arc<Context>, Inputs, mpsc::Sender<follower::Heard>) {
    let clock = Clock::system();
    let meters = Meters::new();
    let registry = Arc::new(Registry::new(fastrand::u64(1..1 << 53)));
    let store_state = Arc::new(StoreState::new(store.describe(), clock.clone()));
    let (writer, requests) = Writer::new(config.max_queue);
    let (observe, observations) = mpsc::channel(OBSERVATIONS);
    let (foreign_sender, foreign) = mpsc::channel(FOREIGN);
    let rounds = Rounds::start(settings(&config), clock.clone(), observe, Arc::clone(&meters) as Arc<_>);
    let context = Context::new(Parts { config, clock, server, registry, rounds, writer, store_state, meters });
    (context, Inputs { requests, observations, foreign }, foreign_sender)
}

fn settings(config: &Config) -> Settings {
    let taken = config.max_connections + config.max_http_connections + config.max_visits;
    Settings {
        interval: config.interval,
        timeout: config.timeout,
        failures: config.failures,
        probation: config.probation,
        start_deadline: config.start_deadline,
        brake_limit: config.brake_limit,
        max_visits: config.max_visits,
        max_kept: files::budget(config.max_kept, taken),
        targets: policy(config),
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

/// Shows readers what the store held, and sends the rounds to look after it.
fn take_in(context: &Context, snapshot: Snapshot) -> Position {
    let records = context.registry.load(snapshot.records);
    if !records.is_empty() {
        tracing::info!(instances = records.len(), "loaded");
    }
    context.rounds.track_stored(&records);
    snapshot.position
}

fn task(context: &Arc<Context>, store: Arc<dyn Store>) -> Task {
    Task {
        registry: Arc::clone(&context.registry),
        store,
        rounds: context.rounds.clone(),
        clock: context.clock.clone(),
        meters: Arc::clone(&context.meters),
        state: Arc::clone(&context.store_state),
        limits: Limits { max_instances: context.config.max_instances, max_namespaces: context.config.max_namespaces },
        unwritten: std::collections::HashMap::new(),
        refuse_until: None,
        full: false,
        tombstones: Tombstones::default(),
        audit: Audit::default(),
        gap: None,
    }
}

async fn bind(door: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { door, addr, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::System { what: "cannot ask for the bound address", source })
}

/// A name that tells this run of this server from every other.
fn server_name() -> String {
    format!("roundsman-{:08x}", fastrand::u32(..))
}
