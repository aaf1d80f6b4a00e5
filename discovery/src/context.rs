//! What the doors share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use roundsman_health::{Rounds, TargetPolicy};
use roundsman_protocol::{Clock, Timestamp};
use roundsman_registry::Registry;
use tokio::sync::Semaphore;

use crate::{
    config::Config,
    doors::rpc::Encodings,
    edges::Edges,
    memory::{Budget, Division},
    metrics::Meters,
    offload::Offload,
    store_state::StoreState,
    writer::Writer,
};

/// What the doors share: snapshots to read, and the writer to ask for changes.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) server: String,
    pub(crate) started_at: Timestamp,
    pub(crate) registry: Arc<Registry>,
    pub(crate) rounds: Rounds,
    pub(crate) writer: Writer,
    pub(crate) store_state: Arc<StoreState>,
    pub(crate) meters: Arc<Meters>,
    /// Which service calls which.
    pub(crate) edges: Arc<Edges>,
    /// Which addresses may be registered.
    pub(crate) targets: TargetPolicy,
    /// One permit per RPC connection.
    pub(crate) permits: Arc<Semaphore>,
    /// How the memory that the server may take is divided.
    pub(crate) memory: Division,
    /// What callers make the server keep of it.
    pub(crate) budget: Arc<Budget>,
    /// Long answers of the RPC door.
    pub(crate) encodings: Encodings,
    /// The addresses that the doors are bound to, once they are.
    pub(crate) bound: OnceLock<Bound>,
    ready: AtomicBool,
}

/// The addresses that the doors are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) rpc: std::net::SocketAddr,
    pub(crate) http: std::net::SocketAddr,
}

/// What a context is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) server: String,
    pub(crate) registry: Arc<Registry>,
    pub(crate) rounds: Rounds,
    pub(crate) writer: Writer,
    pub(crate) store_state: Arc<StoreState>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) memory: Division,
    pub(crate) offload: Offload,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, clock, server, registry, rounds, writer, store_state, meters, memory, offload } = parts;
        let permits = Arc::new(Semaphore::new(config.max_connections));
        let edges = Edges::new(config.max_edges, clock.clone(), meters.unrecorded_edges.clone());
        let (started_at, targets) = (clock.now(), crate::server::policy(&config));
        let budget = Budget::new(memory.callers);
        let encodings = Encodings::new(offload, Arc::clone(&budget));
        let (bound, ready) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(Self {
            config,
            clock,
            server,
            started_at,
            registry,
            rounds,
            writer,
            store_state,
            meters,
            edges,
            targets,
            permits,
            memory,
            budget,
            encodings,
            bound,
            ready,
        })
    }

    /// RPC connections at this moment.
    pub(crate) fn connections(&self) -> u64 {
        let open = self.config.max_connections.saturating_sub(self.permits.available_permits());
        u64::try_from(open).unwrap_or(u64::MAX)
    }

    /// Whether the store was loaded and the doors are open. Once true, stays true until the server stops.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }
}
