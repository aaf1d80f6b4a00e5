//! The RPC door's trait. tarpc makes the client, the requests and the responses out of it.
#![allow(missing_docs, reason = "tarpc's macro emits items without documentation")]

use std::{sync::Arc, time::Duration};

use crate::{
    error::DiscoveryError,
    graph::Graph,
    history::{HistoryPage, HistoryQuery},
    instance::{Instance, Registered, Registration},
    name::{InstanceId, ServiceName},
    operating::{Dismissed, Patch, Patched},
    query::{Query, ServiceSummary, Trouble},
    status::Status,
    update::{Bookmark, Cursor, Known, Page, Update},
};

/// Everything a server does for its clients, in the namespace that the handshake named.
///
/// The order of the methods, of their arguments and of all fields is the wire format: postcard is positional. Whoever
/// changes it makes a new [`Version`](crate::Version), and the types as they were become a module of their own.
#[tarpc::service(derive = [Clone, serde::Serialize, serde::Deserialize])]
pub trait Discovery {
    /// Registers an instance, or changes what it said of itself. Durable once answered.
    async fn register(registration: Registration) -> Result<Registered, DiscoveryError>;
    /// Takes an instance out for good.
    async fn deregister(id: InstanceId) -> Result<(), DiscoveryError>;
    /// "I am alive", from an instance with a ttl check.
    async fn renew(id: InstanceId) -> Result<(), DiscoveryError>;
    /// Stops (`on`) or resumes handing an instance out. Whoever did not register it on this connection is an operator, whose
    /// drains outlast registrations, and which only an operator takes back.
    async fn drain(id: InstanceId, on: bool) -> Result<(), DiscoveryError>;
    /// One instance that is handed out, in turn and by weight.
    async fn get(service: ServiceName) -> Result<Arc<Instance>, DiscoveryError>;
    /// The instances that a query matches, page by page: from the beginning, or from a bookmark of the page before.
    async fn list(query: Query, after: Option<Bookmark>) -> Result<Page, DiscoveryError>;
    /// All services of the namespace.
    async fn services() -> Result<Vec<ServiceSummary>, DiscoveryError>;
    /// What changed after a cursor; waits up to `wait` for it. Without a cursor, or with one that this
    /// server cannot go on from, a snapshot at once: all of it, or what `known` does not cover. With `page`, which
    /// an update had as `next`, the rest of that update.
    async fn watch(
        query: Query,
        after: Option<Cursor>,
        wait: Wait,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> Result<Update, DiscoveryError>;
    /// A caller could not use this instance: visit it now.
    async fn report(id: InstanceId, trouble: Trouble) -> Result<(), DiscoveryError>;
    /// The whole server at this moment.
    async fn status() -> Result<Status, DiscoveryError>;
    /// Which service calls which, as far as this server has seen.
    async fn graph() -> Result<Graph, DiscoveryError>;
    /// What happened in the namespace, newest first, as far as the store remembers it.
    async fn history(query: HistoryQuery) -> Result<HistoryPage, DiscoveryError>;
    /// Takes an instance out as an operator does: tells who will register it again, and with `block` keeps its id out for
    /// so long. A block of no time ends one.
    async fn dismiss(id: InstanceId, block: Option<Wait>) -> Result<Dismissed, DiscoveryError>;
    /// Changes what is named of an instance, on top of whatever it is by then, and leaves the rest as it is.
    async fn update(id: InstanceId, patch: Patch) -> Result<Patched, DiscoveryError>;
}

/// A time: how long a watch may wait, how long a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait(#[serde(with = "crate::time::duration")] pub Duration);

#[cfg(test)]
mod tests {
    use super::*;

    /// postcard is positional: whoever reorders the trait breaks every client in the field.
    #[test]
    fn the_order_of_the_methods_is_fixed() {
        let id: InstanceId = "a".parse().unwrap();
        let watch = DiscoveryRequest::Watch {
            query: Query::default(),
            after: None,
            wait: Wait(Duration::ZERO),
            known: None,
            page: None,
        };
        let requests = [
            (DiscoveryRequest::Deregister { id: id.clone() }, 1),
            (DiscoveryRequest::Renew { id: id.clone() }, 2),
            (DiscoveryRequest::Drain { id: id.clone(), on: true }, 3),
            (DiscoveryRequest::Get { service: "a".parse().unwrap() }, 4),
            (DiscoveryRequest::List { query: Query::default(), after: None }, 5),
            (DiscoveryRequest::Services {}, 6),
            (watch, 7),
            (DiscoveryRequest::Report { id: id.clone(), trouble: Trouble::Timeout }, 8),
            (DiscoveryRequest::Status {}, 9),
            (DiscoveryRequest::Graph {}, 10),
            (DiscoveryRequest::History { query: HistoryQuery::default() }, 11),
            (DiscoveryRequest::Dismiss { id: id.clone(), block: None }, 12),
            (DiscoveryRequest::Update { id, patch: Patch::default() }, 13),
        ];
        for (request, variant) in requests {
            assert_eq!(postcard::to_allocvec(&request).unwrap().first(), Some(&variant), "{request:?}");
        }
    }

    #[test]
    fn what_was_added_need_not_be_said_in_json() {
        for (short, long) in [
            (r#"{"Dismiss":{"id":"a"}}"#, r#"{"Dismiss":{"id":"a","block":null}}"#),
            (
                r#"{"Update":{"id":"a","patch":{"weight":5}}}"#,
                r#"{"Update":{"id":"a","patch":{"weight":5,"zone":null,"tags":[],"meta":{},"forget_after":null}}}"#,
            ),
            (r#"{"List":{"query":{}}}"#, r#"{"List":{"query":{},"after":null}}"#),
            (
                r#"{"Watch":{"query":{},"wait":"1s"}}"#,
                r#"{"Watch":{"query":{"subset":null},"after":null,"wait":"1s","known":null,"page":null}}"#,
            ),
        ] {
            let read = |json| format!("{:?}", serde_json::from_str::<DiscoveryRequest>(json).unwrap());
            assert_eq!(read(short), read(long));
        }
    }
}
