//! Which parts a server has, and who knows whom.

use std::{collections::HashSet, sync::Arc};

use roundsman_health::{Rounds, Settings};
use roundsman_protocol::Clock;
use roundsman_registry::{Limits, Record, Registry, Tombstone, Tombstones, registry::LOG_CAPACITY};
use roundsman_store::{Durable, Store};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    config::Config,
    context::{Context, Parts},
    doors::{
        http,
        rpc::{self, RpcDoor},
    },
    files,
    follower::Heard,
    inventory,
    memory::Division,
    metrics::Metrics,
    offload::Offload,
    store_state::StoreState,
    visits::{self, Visits},
    writer::{self, Audit, Inputs, Journal, Task, Troubled, Unwritten, Writer},
};

/// How many observations may wait for the writer before visits wait.
const OBSERVATIONS: usize = 8_192;
/// How many changes of other servers may wait for the writer.
const FOREIGN: usize = 1_024;

/// The parts of a server that is not started yet.
pub(crate) struct Assembled {
    pub(crate) context: Arc<Context>,
    pub(crate) rpc: Arc<RpcDoor>,
    pub(crate) http: http::Meters,
    pub(crate) writer: Arc<writer::Meters>,
    pub(crate) inputs: Inputs,
    /// Where the follower tells the writer what it heard.
    pub(crate) foreign: mpsc::Sender<Heard>,
}

pub(crate) fn assemble(config: Config, server: String, store: &Arc<dyn Store>, offload: Offload) -> Assembled {
    let clock = Clock::system();
    let mut metrics = Metrics::new();
    let memory = Division::of(config.max_memory);
    let registry = Arc::new(Registry::with_logs(fastrand::u64(1..1 << 53), LOG_CAPACITY, memory.logs));
    inventory::export(&registry, &mut metrics);
    let store_state = StoreState::new(store.describe(), clock.clone(), &mut metrics);
    let (writer, requests) = Writer::new(config.max_queue);
    let (observe, observations) = mpsc::channel(OBSERVATIONS);
    let (foreign_sender, foreign) = mpsc::channel(FOREIGN);
    let rounds = Rounds::start(settings(&config), clock.clone(), observe, Visits::new(&mut metrics));
    visits::export(&rounds, &mut metrics);
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let rpc = rpc::Meters::new(&permits, config.max_connections, &mut metrics);
    let (http, writer_meters) = (http::Meters::new(&mut metrics), writer::Meters::new(&mut metrics));
    let store = Arc::clone(store) as Arc<dyn Durable>;
    let parts = Parts {
        config,
        clock,
        server,
        registry,
        rounds,
        writer,
        store,
        store_state,
        metrics,
        permits,
        memory,
        offload,
    };
    let context = Context::new(parts);
    let rpc = RpcDoor::new(Arc::clone(&context), rpc);
    let inputs = Inputs { requests, observations, foreign };
    Assembled { context, rpc, http, writer: writer_meters, inputs, foreign: foreign_sender }
}

fn settings(config: &Config) -> Settings {
    let taken = config.max_connections + config.max_http_connections + http::BESIDE;
    let shares = files::shares(config.max_kept, config.max_visits, taken);
    Settings {
        interval: config.interval,
        timeout: config.timeout,
        failures: config.failures,
        probation: config.probation,
        replicas: config.store.may_be_shared(),
        start_deadline: config.start_deadline,
        brake_limit: config.brake_limit,
        max_visits: shares.visits,
        asking: Settings::default().asking,
        max_kept: shares.kept,
        targets: config.targets(),
        name_servers: None,
        user_agent: concat!("roundsman/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// The writer, with everything that it needs.
pub(crate) fn task(
    context: &Context,
    store: Arc<dyn Durable>,
    meters: Arc<writer::Meters>,
    removed: Vec<Tombstone>,
    ghosts: Vec<Arc<Record>>,
) -> Task {
    let (now, mut tombstones) = (context.clock.now(), Tombstones::default());
    for tombstone in removed {
        context.registry.saw_version(tombstone.version);
        tombstones.add(tombstone, now);
    }
    let mut unwritten = Unwritten::default();
    for ghost in ghosts {
        let version = ghost.asked.version;
        tombstones.add(Tombstone { key: ghost.key(), version }, now);
        unwritten.back(ghost, version);
    }
    Task {
        registry: Arc::clone(&context.registry),
        groups: Arc::clone(&context.groups),
        store,
        rounds: context.rounds.clone(),
        server: context.server.as_str().into(),
        clock: context.clock.clone(),
        meters,
        state: Arc::clone(&context.store_state),
        limits: Limits {
            max_instances: context.config.max_instances,
            max_instances_per_namespace: context.config.max_instances_per_namespace,
            max_namespaces: context.config.max_namespaces,
            max_bytes: context.memory.instances,
            max_bytes_per_namespace: context.memory.instances / 4 * 3,
        },
        unwritten,
        writing: HashSet::new(),
        conflicts: 0,
        refuse_until: None,
        full: false,
        tombstones,
        audit: Audit::default(),
        journal: Journal::new(&context.server),
        troubled: Troubled::default(),
        gap: None,
    }
}
