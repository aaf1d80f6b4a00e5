//! The whole server at one moment, and who calls whom on it.

use roundsman_protocol::{Graph, Status, status::DoorsStatus};

use super::caller::Caller;
use crate::principal::Door;

/// How much of the server a caller is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The services of its own namespace.
    Namespace,
    /// Those of all: for operators.
    Server,
}

// === impl Caller ===

impl Caller {
    /// The state of the server, with the services that the caller may see.
    pub(super) fn status(&self, sight: Sight) -> Status {
        let context = &self.context;
        let only = match sight {
            Sight::Namespace => Some(&self.namespace),
            Sight::Server => None,
        };
        let bound = context.bound.get();
        Status {
            server: context.server.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: context.started_at,
            now: context.clock.now(),
            ready: context.is_ready(),
            store: context.store_state.status(),
            rounds: context.rounds.status(),
            brake: context.rounds.brake(),
            doors: DoorsStatus {
                rpc: bound.map(|bound| bound.rpc.to_string()),
                http: bound.map(|bound| bound.http.to_string()),
                connections: context.connections(),
                calls: context.meters.of(Door::Rpc).count(),
                watches: u64::try_from(context.registry.watches()).unwrap_or(u64::MAX),
            },
            memory: context.budget.status(context.memory.limit, context.registry.bytes()),
            namespaces: context.registry.overview(only),
            recent: context.registry.recent(only),
            replicas: Vec::new(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.context.is_ready()
    }

    pub(super) fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.context.metrics.page()
    }

    /// Which service of the namespace calls which.
    pub(super) fn graph(&self) -> Graph {
        let context = &self.context;
        let services = context.registry.services(&self.namespace).into_iter().map(|service| service.name).collect();
        context.edges.graph(&self.namespace, services, context.started_at)
    }
}
