//! The whole server at one moment, and who calls whom on it.

use roundsman_protocol::{Graph, Namespace, Status, status::DoorsStatus};

use crate::context::Context;

/// The state of the server. `only`: with the services of one namespace, not of all.
pub(crate) fn status(context: &Context, only: Option<&Namespace>) -> Status {
    Status { namespaces: context.registry.overview(only), ..summary(context, only) }
}

/// The state of the server, without the services.
pub(crate) fn summary(context: &Context, only: Option<&Namespace>) -> Status {
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
            calls: context.meters.call_count(),
            watches: u64::try_from(context.registry.watches()).unwrap_or(u64::MAX),
        },
        memory: context.budget.status(context.memory.limit, context.registry.bytes()),
        namespaces: Vec::new(),
        recent: context.registry.recent(only),
        replicas: Vec::new(),
    }
}

/// Which service of a namespace calls which.
pub(crate) fn graph(context: &Context, namespace: &Namespace) -> Graph {
    let services = context.registry.services(namespace).into_iter().map(|service| service.name).collect();
    context.edges.graph(namespace, services, context.started_at)
}
