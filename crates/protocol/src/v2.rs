//! Version 2 of the protocol, where its messages are not those of the current one.
//!
//! It knows no pages, digests and subsets: lists and snapshots are whole, and nobody is forgotten at a time of its own.
//! [`v1`](crate::v1) has the same methods with other checks and statuses, for which these types are generic.

mod instance;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::instance::{Instance, Registered, Registration, Shown};
use crate::{
    bounded,
    error::{DiscoveryError, Invalid},
    graph::Graph,
    instance as current,
    meta::Meta,
    name::{InstanceId, ServiceName},
    query::{self, Scope, ServiceSummary, Trouble},
    rpc::{DiscoveryRequest, DiscoveryResponse, Wait},
    status::Status,
    update::{self, Cursor, Page, Removed},
};

/// What a client asks for. The order of the methods is the wire format.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the methods of `Discovery`")]
pub enum Request<R = Registration> {
    Register { registration: R },
    Deregister { id: InstanceId },
    Renew { id: InstanceId },
    Drain { id: InstanceId, on: bool },
    Get { service: ServiceName },
    List { query: Query },
    Services {},
    Watch { query: Query, after: Option<Cursor>, wait: Wait },
    Report { id: InstanceId, trouble: Trouble },
    Status {},
    Graph {},
}

/// What the server answers. The order of the methods is the wire format.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the methods of `Discovery`")]
pub enum Response<I = Instance, S = Status> {
    Register(Result<Registered, DiscoveryError>),
    Deregister(Result<(), DiscoveryError>),
    Renew(Result<(), DiscoveryError>),
    Drain(Result<(), DiscoveryError>),
    Get(Result<I, DiscoveryError>),
    List(Result<Vec<I>, DiscoveryError>),
    Services(Result<Vec<ServiceSummary>, DiscoveryError>),
    Watch(Result<Update<I>, DiscoveryError>),
    Report(Result<(), DiscoveryError>),
    Status(Result<S, DiscoveryError>),
    Graph(Result<Graph, DiscoveryError>),
}

/// Which instances a list or a watch is about: [`crate::Query`] without a subset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Query {
    #[serde(deserialize_with = "bounded::services")]
    pub services: Vec<ServiceName>,
    pub scope: Scope,
    #[serde(deserialize_with = "bounded::tags")]
    pub tags: Vec<Box<str>>,
    pub meta: Meta,
    pub zone: Option<Box<str>>,
    pub version: Option<Box<str>>,
    pub history: bool,
}

/// What a watch answers: [`crate::Update`] without parts and pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Update<I = Instance> {
    pub cursor: Cursor,
    pub snapshot: bool,
    pub instances: Vec<I>,
    pub removed: Vec<Removed>,
}

/// How long a client that knows no blocks waits before it asks again.
const BLOCKED_RETRY: Duration = Duration::from_secs(30);

/// An error in the words of this version.
fn told(error: DiscoveryError) -> DiscoveryError {
    match error {
        // It passes, as none of the refusals for good does.
        DiscoveryError::Blocked { .. } => {
            DiscoveryError::StoreUnavailable { reason: error.to_string(), retry_after: BLOCKED_RETRY }
        }
        DiscoveryError::Replaced { id, .. } => DiscoveryError::NotRegistered { id },
        error => error,
    }
}

// === impl Request ===

impl<R> Request<R> {
    /// What a client of today wants to ask, as far as it can be said. A subset is left out, so that the server tells
    /// of all; what a watcher knows, so that it gets everything.
    ///
    /// # Errors
    /// What cannot be said, and must not be left out. It names the version.
    pub fn of(request: DiscoveryRequest) -> Result<Self, Invalid>
    where
        R: TryFrom<current::Registration, Error: Into<Invalid>>,
    {
        use DiscoveryRequest as Current;
        // A server that speaks this version gave out no bookmark: answered as a whole, the list would have twice
        // what was on the pages before.
        let no_page = |field| Err(Invalid::new(field, "the bookmark is that of another server; begin anew"));
        Ok(match request {
            Current::Register { registration } => {
                Self::Register { registration: registration.try_into().map_err(Into::into)? }
            }
            Current::Deregister { id } => Self::Deregister { id },
            Current::Renew { id } => Self::Renew { id },
            Current::Drain { id, on } => Self::Drain { id, on },
            Current::Get { service } => Self::Get { service },
            Current::List { after: Some(_), .. } => return no_page("after"),
            Current::List { query, after: None } => Self::List { query: query.into() },
            Current::Services {} => Self::Services {},
            Current::Watch { page: Some(_), .. } => return no_page("page"),
            Current::Watch { query, after, wait, known: _, page: None } => {
                Self::Watch { query: query.into(), after, wait }
            }
            Current::Report { id, trouble } => Self::Report { id, trouble },
            Current::Status {} => Self::Status {},
            Current::Graph {} => Self::Graph {},
            Current::History { .. } => return Err(too_old("history")),
            // Not a deregistration: whoever asks for the one is not prepared for the answer to the other.
            Current::Dismiss { block, .. } => {
                return Err(too_old(if block.is_some() { "block" } else { "dismiss" }));
            }
            Current::Update { .. } => return Err(too_old("update")),
        })
    }
}

fn too_old(field: &str) -> Invalid {
    Invalid::new(field, "the server speaks version 2 of the protocol or 1, which cannot ask for it; ask a newer one")
}

impl<R: Into<current::Registration>> From<Request<R>> for DiscoveryRequest {
    fn from(request: Request<R>) -> Self {
        match request {
            Request::Register { registration } => Self::Register { registration: registration.into() },
            Request::Deregister { id } => Self::Deregister { id },
            Request::Renew { id } => Self::Renew { id },
            Request::Drain { id, on } => Self::Drain { id, on },
            Request::Get { service } => Self::Get { service },
            Request::List { query } => Self::List { query: query.into(), after: None },
            Request::Services {} => Self::Services {},
            Request::Watch { query, after, wait } => {
                Self::Watch { query: query.into(), after, wait, known: None, page: None }
            }
            Request::Report { id, trouble } => Self::Report { id, trouble },
            Request::Status {} => Self::Status {},
            Request::Graph {} => Self::Graph {},
        }
    }
}

// === impl Response ===

impl<I: From<Arc<current::Instance>>, S: From<Status>> From<DiscoveryResponse> for Response<I, S> {
    fn from(response: DiscoveryResponse) -> Self {
        use DiscoveryResponse as Current;
        match response {
            Current::Register(result) => Self::Register(result.map(Into::into).map_err(told)),
            Current::Deregister(result) => Self::Deregister(result.map_err(told)),
            Current::Renew(result) => Self::Renew(result.map_err(told)),
            Current::Drain(result) => Self::Drain(result.map_err(told)),
            Current::Get(result) => Self::Get(result.map(Into::into)),
            Current::List(result) => {
                Self::List(result.map(|page| page.instances.into_iter().map(Into::into).collect()))
            }
            Current::Services(result) => Self::Services(result),
            Current::Watch(result) => Self::Watch(result.map(Into::into)),
            Current::Report(result) => Self::Report(result),
            Current::Status(result) => Self::Status(result.map(Into::into)),
            Current::Graph(result) => Self::Graph(result),
            // Nobody who speaks this version can ask, so nobody gets these.
            Current::History(result) => Self::Services(result.map(|_| vec![])),
            Current::Dismiss(result) => Self::Deregister(result.map(|_| ()).map_err(told)),
            Current::Update(result) => Self::Drain(result.map(|_| ()).map_err(told)),
        }
    }
}

impl<I: Into<Arc<current::Instance>>, S: Into<Status>> From<Response<I, S>> for DiscoveryResponse {
    fn from(response: Response<I, S>) -> Self {
        let page = |instances: Vec<I>| {
            let cursor = Cursor { epoch: 0, revision: 0 };
            Page { cursor, instances: instances.into_iter().map(Into::into).collect(), next: None }
        };
        match response {
            Response::Register(result) => Self::Register(result.map(Into::into)),
            Response::Deregister(result) => Self::Deregister(result),
            Response::Renew(result) => Self::Renew(result),
            Response::Drain(result) => Self::Drain(result),
            Response::Get(result) => Self::Get(result.map(Into::into)),
            Response::List(result) => Self::List(result.map(page)),
            Response::Services(result) => Self::Services(result),
            Response::Watch(result) => Self::Watch(result.map(Into::into)),
            Response::Report(result) => Self::Report(result),
            Response::Status(result) => Self::Status(result.map(Into::into)),
            Response::Graph(result) => Self::Graph(result),
        }
    }
}

// === impl Query ===

impl From<query::Query> for Query {
    fn from(query: query::Query) -> Self {
        let query::Query { services, scope, tags, meta, zone, version, history, subset: _ } = query;
        Self { services, scope, tags, meta, zone, version, history }
    }
}

impl From<Query> for query::Query {
    fn from(query: Query) -> Self {
        let Query { services, scope, tags, meta, zone, version, history } = query;
        Self { services, scope, tags, meta, zone, version, history, subset: None }
    }
}

// === impl Update ===

impl<I: From<Arc<current::Instance>>> From<update::Update> for Update<I> {
    fn from(update: update::Update) -> Self {
        let update::Update { cursor, snapshot, instances, removed, parts: _, next: _ } = update;
        Self { cursor, snapshot, instances: instances.into_iter().map(Into::into).collect(), removed }
    }
}

impl<I: Into<Arc<current::Instance>>> From<Update<I>> for update::Update {
    fn from(update: Update<I>) -> Self {
        let Update { cursor, snapshot, instances, removed } = update;
        let instances = instances.into_iter().map(Into::into).collect();
        Self { snapshot, instances, removed, ..Self::unchanged(cursor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        history::HistoryQuery,
        subset::Subset,
        update::{Bookmark, Known},
    };

    /// postcard is positional: whoever reorders them breaks every client of this version.
    #[test]
    fn the_order_of_the_methods_is_fixed() {
        let id: InstanceId = "a".parse().unwrap();
        let registration = current::Registration::new("a".parse().unwrap(), "a:1".parse().unwrap());
        let requests: [Request; 11] = [
            Request::Register { registration: registration.try_into().unwrap() },
            Request::Deregister { id: id.clone() },
            Request::Renew { id: id.clone() },
            Request::Drain { id: id.clone(), on: true },
            Request::Get { service: "a".parse().unwrap() },
            Request::List { query: Query::default() },
            Request::Services {},
            Request::Watch { query: Query::default(), after: None, wait: Wait(Duration::ZERO) },
            Request::Report { id, trouble: Trouble::Timeout },
            Request::Status {},
            Request::Graph {},
        ];
        for (variant, request) in requests.iter().enumerate() {
            let bytes = postcard::to_allocvec(request).unwrap();
            assert_eq!(usize::from(bytes[0]), variant, "{request:?}");
        }
        let empty: [Response; 11] = [
            Response::Register(Err(DiscoveryError::ShuttingDown)),
            Response::Deregister(Ok(())),
            Response::Renew(Ok(())),
            Response::Drain(Ok(())),
            Response::Get(Err(DiscoveryError::ShuttingDown)),
            Response::List(Ok(vec![])),
            Response::Services(Ok(vec![])),
            Response::Watch(Ok(update::Update::unchanged(Cursor { epoch: 1, revision: 1 }).into())),
            Response::Report(Ok(())),
            Response::Status(Err(DiscoveryError::ShuttingDown)),
            Response::Graph(Err(DiscoveryError::ShuttingDown)),
        ];
        for (variant, response) in empty.iter().enumerate() {
            let bytes = postcard::to_allocvec(response).unwrap();
            assert_eq!(usize::from(bytes[0]), variant, "{response:?}");
        }
        assert_eq!(postcard::to_allocvec(&empty[5]).unwrap(), [5, 0, 0]);
        assert_eq!(postcard::to_allocvec(&empty[7]).unwrap(), [7, 0, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn what_it_cannot_express_is_left_out_and_a_bookmark_refused() {
        let subset = Some(Subset { client: "a".into(), size: 1 });
        let query = query::Query { subset, zone: Some("z".into()), ..query::Query::default() };
        let known = Some(Known::Digest(Digest::default()));
        let watch = |page| DiscoveryRequest::Watch {
            query: query.clone(),
            after: None,
            wait: Wait(Duration::ZERO),
            known: known.clone(),
            page,
        };
        let told = <Request>::of(watch(None)).unwrap();
        let DiscoveryRequest::Watch { query: read, known: None, page: None, .. } = told.into() else { panic!() };
        assert_eq!(read, query::Query { subset: None, ..query.clone() });
        let bookmark = Some(Bookmark::try_new("b").unwrap());
        assert_eq!(<Request>::of(watch(bookmark.clone())).unwrap_err().field, "page");
        let list = DiscoveryRequest::List { query, after: bookmark };
        assert_eq!(<Request>::of(list).unwrap_err().field, "after");
        let history = DiscoveryRequest::History { query: HistoryQuery::default() };
        assert!(<Request>::of(history).unwrap_err().to_string().starts_with("history: the server speaks version 2"));
    }

    #[test]
    fn what_came_later_is_an_error_where_it_must_not_be_lost() {
        let plain = current::Registration::new("a".parse().unwrap(), "a:1".parse().unwrap());
        let long = Duration::from_secs(72 * 3_600);
        let patient = current::Registration { forget_after: Some(long), ..plain.clone() };
        let refused = <Request>::of(DiscoveryRequest::Register { registration: patient }).unwrap_err();
        assert_eq!(refused.field, "forget_after");
        let again = current::Registration { again: true, ..plain.clone() };
        let sent = <Request>::of(DiscoveryRequest::Register { registration: again }).unwrap();
        assert!(matches!(sent.into(), DiscoveryRequest::Register { registration } if registration == plain));
        let id: InstanceId = "a".parse().unwrap();
        let dismiss = |block| DiscoveryRequest::Dismiss { id: id.clone(), block };
        assert_eq!(<Request>::of(dismiss(None)).unwrap_err().field, "dismiss");
        assert_eq!(<Request>::of(dismiss(Some(Wait(long)))).unwrap_err().field, "block");
        let patch = crate::operating::Patch::default();
        assert_eq!(<Request>::of(DiscoveryRequest::Update { id: id.clone(), patch }).unwrap_err().field, "update");
    }

    #[test]
    fn refusals_that_it_does_not_know_are_told_in_those_that_it_does() {
        let id: InstanceId = "a".parse().unwrap();
        let reason = "blocked until 2026-11-22T02:00:00Z by order".into();
        let blocked = DiscoveryError::Blocked { id: id.clone(), until: crate::time::Timestamp::default(), reason };
        let Response::Register(Err(refusal)) = <Response>::from(DiscoveryResponse::Register(Err(blocked))) else {
            panic!()
        };
        assert!(
            refusal.is_retryable() && refusal.to_string().contains("blocked until 2026-11-22T02:00:00Z by order"),
            "{refusal}"
        );
        let replaced = DiscoveryError::Replaced { id: id.clone(), by: "b".parse().unwrap() };
        let Response::Renew(refused) = <Response>::from(DiscoveryResponse::Renew(Err(replaced))) else { panic!() };
        assert_eq!(refused, Err(DiscoveryError::NotRegistered { id }));
    }
}
