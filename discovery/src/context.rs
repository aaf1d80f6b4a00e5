//! The parts of a running server, as far as whoever asks it something needs them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use roundsman_health::{Rounds, TargetPolicy};
use roundsman_protocol::{Clock, Timestamp};
use roundsman_registry::Registry;
use roundsman_store::Durable;
use tokio::sync::Semaphore;

use crate::{
    api::Moments,
    calls::Meters,
    config::Config,
    edges::Edges,
    keepers::Keepers,
    memory::{Budget, Division},
    metrics::Metrics,
    offload::Offload,
    store_state::StoreState,
    subsets::Groups,
    writer::Writer,
};

/// Snapshots to read, and the writer to ask for changes. Doors reach it through [`crate::api::Api`].
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) server: String,
    pub(crate) started_at: Timestamp,
    pub(crate) registry: Arc<Registry>,
    pub(crate) rounds: Rounds,
    pub(crate) writer: Writer,
    /// For the history alone: whatever else is asked of the store, the writer asks.
    pub(crate) store: Arc<dyn Durable>,
    pub(crate) store_state: Arc<StoreState>,
    /// What is counted of calls.
    pub(crate) meters: Meters,
    /// What all parts count.
    pub(crate) metrics: Metrics,
    /// Which service calls which.
    pub(crate) edges: Arc<Edges>,
    /// Who has which share of a service.
    pub(crate) groups: Arc<Groups>,
    /// Which caller keeps which instance.
    pub(crate) keepers: Keepers,
    /// Which addresses may be registered.
    pub(crate) targets: TargetPolicy,
    /// One permit per RPC connection.
    pub(crate) permits: Arc<Semaphore>,
    /// How the memory that the server may take is divided.
    pub(crate) memory: Division,
    /// What callers make the server keep of it.
    pub(crate) budget: Arc<Budget>,
    /// Where work is done that takes longer than a moment.
    pub(crate) offload: Offload,
    /// What answers in pages are cut from.
    pub(crate) moments: Moments,
    /// The addresses that the doors are bound to, once they are.
    pub(crate) bound: OnceLock<Bound>,
    ready: AtomicBool,
}

/// The addresses that the doors are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) rpc: SocketAddr,
    pub(crate) http: SocketAddr,
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
    pub(crate) store: Arc<dyn Durable>,
    pub(crate) store_state: Arc<StoreState>,
    pub(crate) metrics: Metrics,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) memory: Division,
    pub(crate) offload: Offload,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, clock, server, registry, rounds, writer, store, store_state, .. } = parts;
        let Parts { mut metrics, permits, memory, offload, .. } = parts;
        let edges = Edges::new(config.max_edges, clock.clone(), &mut metrics);
        let budget = Budget::new(memory.callers);
        budget.export(memory, &registry, &mut metrics);
        let moments = Moments::new(Arc::clone(&registry), Arc::clone(&budget));
        let groups = Groups::new(Arc::clone(&registry), Arc::clone(&budget), &mut metrics);
        Arc::new(Self {
            started_at: clock.now(),
            targets: config.targets(),
            meters: Meters::new(&mut metrics),
            keepers: Keepers::default(),
            bound: OnceLock::new(),
            ready: AtomicBool::new(false),
            config,
            clock,
            server,
            registry,
            rounds,
            writer,
            store,
            store_state,
            metrics,
            edges,
            groups,
            permits,
            memory,
            budget,
            offload,
            moments,
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
