//! The RPC door's trait. tarpc makes the client, the requests and the responses out of it.
#![allow(missing_docs, reason = "tarpc's macro emits items without documentation")]

use std::{sync::Arc, time::Duration};

use crate::{
    error::DiscoveryError,
    graph::Graph,
    instance::{Instance, Registered, Registration},
    name::{InstanceId, ServiceName},
    query::{Cursor, Query, ServiceSummary, Trouble, Update},
    status::Status,
};

/// Everything a server does for its clients, in the namespace that the handshake named.
///
/// The order of the methods is the wire format: append only.
#[tarpc::service]
pub trait Discovery {
    /// Registers an instance, or changes what it said of itself. Durable once answered.
    async fn register(registration: Registration) -> Result<Registered, DiscoveryError>;
    /// Takes an instance out for good.
    async fn deregister(id: InstanceId) -> Result<(), DiscoveryError>;
    /// "I am alive", from an instance with a ttl check.
    async fn renew(id: InstanceId) -> Result<(), DiscoveryError>;
    /// Stops (`on`) or resumes handing an instance out.
    async fn drain(id: InstanceId, on: bool) -> Result<(), DiscoveryError>;
    /// One instance that is handed out, in turn and by weight.
    async fn get(service: ServiceName) -> Result<Arc<Instance>, DiscoveryError>;
    /// The instances that a query matches.
    async fn list(query: Query) -> Result<Vec<Arc<Instance>>, DiscoveryError>;
    /// All services of the namespace.
    async fn services() -> Result<Vec<ServiceSummary>, DiscoveryError>;
    /// What changed after a cursor; waits up to `wait` for it. Without a cursor, or with one that this
    /// server cannot go on from, a snapshot at once.
    async fn watch(query: Query, after: Option<Cursor>, wait: Wait) -> Result<Update, DiscoveryError>;
    /// A caller could not use this instance: visit it now.
    async fn report(id: InstanceId, trouble: Trouble) -> Result<(), DiscoveryError>;
    /// The whole server at this moment.
    async fn status() -> Result<Status, DiscoveryError>;
    /// Which service calls which, as far as this server has seen.
    async fn graph() -> Result<Graph, DiscoveryError>;
}

/// How long a watch may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait(#[serde(with = "crate::time::duration")] pub Duration);

#[cfg(test)]
mod tests {
    use super::*;

    /// postcard is positional: whoever reorders the trait breaks every client in the field.
    #[test]
    fn the_order_of_the_methods_is_fixed() {
        let id: InstanceId = "a".parse().unwrap();
        let requests = [
            (DiscoveryRequest::Deregister { id: id.clone() }, 1),
            (DiscoveryRequest::Renew { id: id.clone() }, 2),
            (DiscoveryRequest::Drain { id: id.clone(), on: true }, 3),
            (DiscoveryRequest::Get { service: "a".parse().unwrap() }, 4),
            (DiscoveryRequest::List { query: Query::default() }, 5),
            (DiscoveryRequest::Services {}, 6),
            (DiscoveryRequest::Watch { query: Query::default(), after: None, wait: Wait(Duration::ZERO) }, 7),
            (DiscoveryRequest::Report { id, trouble: Trouble::Timeout }, 8),
            (DiscoveryRequest::Status {}, 9),
            (DiscoveryRequest::Graph {}, 10),
        ];
        for (request, variant) in requests {
            assert_eq!(postcard::to_allocvec(&request).unwrap().first(), Some(&variant), "{request:?}");
        }
    }
}
