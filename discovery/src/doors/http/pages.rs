//! What is answered on which path.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use roundsman_protocol::{Namespace, Status, status::NamespaceStatus};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::yield_now};

use super::shared_page::{SharedPage, Written};
use crate::{context::Context, status};

/// Answers that clients have not read yet may take so many bytes. Over it only those pages are
/// answered that are always small.
const MAX_UNREAD: usize = 64 * 1_024 * 1_024;
/// How many services are written before others get their turn: well under a millisecond's work.
const SLICE: usize = 256;

/// To a client that was not admitted.
pub(super) const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n",
    "content-type: text/plain\r\n\r\n",
    "the server's limit --max-http-connections is reached; try again\n"
);
/// To a client in the middle of a head whose place another one needs.
pub(super) const GAVE_WAY: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n",
    "content-type: text/plain\r\n\r\n",
    "this connection was idle for longest when the server's limit --max-http-connections was reached; try again\n"
);
/// To a client whose head did not come in time.
pub(super) const TOO_SLOW: &str = concat!(
    "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n",
    "the head of the request took too long\n"
);
/// To a client that hyper hangs up on without a word.
pub(super) const NO_HTTP: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n",
    "this is the HTTP door, and it speaks HTTP/1.1 only\n"
);

/// What the pages are made of.
pub(super) struct Pages {
    context: Arc<Context>,
    metrics: SharedPage,
    status: SharedPage,
    /// Graphs are of different namespaces and therefore not shared; they are written one after the
    /// other instead.
    graph: Semaphore,
    unread: Arc<AtomicUsize>,
}

/// A page that counts as unread until all clients that it is for have it.
struct Unread {
    page: Vec<u8>,
    total: Arc<AtomicUsize>,
}

// === impl Pages ===

impl Pages {
    pub(super) fn new(context: Arc<Context>) -> Arc<Self> {
        let (metrics, status) = (SharedPage::default(), SharedPage::default());
        Arc::new(Self { context, metrics, status, graph: Semaphore::new(1), unread: Arc::default() })
    }

    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/api/v1/status", get(whole_status))
            .route("/api/v1/graph", get(graph))
            .fallback(nothing_here)
            .with_state(self)
    }

    /// The page as it is sent, or why it cannot be.
    fn count(&self, page: Vec<u8>) -> Bytes {
        self.unread.fetch_add(page.len(), Ordering::Relaxed);
        Bytes::from_owner(Unread { page, total: Arc::clone(&self.unread) })
    }

    /// A refusal when too much of what was answered earlier is still unread.
    fn too_much_unread(&self) -> Option<Response> {
        let unread = self.unread.load(Ordering::Relaxed);
        if unread < MAX_UNREAD {
            return None;
        }
        self.context.meters.refused("unread-answers");
        Some(busy(&format!("answers that clients have not read yet take {unread} bytes; try again in a few seconds")))
    }
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.page
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.total.fetch_sub(self.page.len(), Ordering::Relaxed);
    }
}

/// Whether a path is answered even when the door is full.
pub(super) fn is_essential(path: &str) -> bool {
    matches!(path, "/health" | "/ready" | "/metrics")
}

/// To a guest who asks for more than what is essential.
pub(super) fn full(limit: usize) -> Response {
    busy(&format!(
        "the server's limit --max-http-connections ({limit}) is reached: only /health, /ready and /metrics are answered; try again"
    ))
}

fn busy(error: &str) -> Response {
    let retry = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry, Json(serde_json::json!({ "error": error }))).into_response()
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    if pages.context.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store is not loaded yet, or the server is stopping\n")
        .into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let writer = Arc::clone(&pages);
    let write = async move {
        let page = writer.context.meters.export(&writer.context).map_err(|error| error.to_string())?;
        Ok(writer.count(page.into_bytes()))
    };
    let page = pages.metrics.ask(write).await;
    answer(page, "application/openmetrics-text; version=1.0.0; charset=utf-8")
}

async fn whole_status(State(pages): State<Arc<Pages>>) -> Response {
    if let Some(refusal) = pages.too_much_unread() {
        return refusal;
    }
    let writer = Arc::clone(&pages);
    let write = async move {
        let summary = status::summary(&writer.context, None);
        let namespaces = writer.context.registry.overview(None);
        let page = write_status(&summary, &namespaces).await.map_err(|error| error.to_string())?;
        Ok(writer.count(page))
    };
    answer(pages.status.ask(write).await, "application/json")
}

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    #[serde(default)]
    namespace: Namespace,
}

async fn graph(State(pages): State<Arc<Pages>>, about: Result<Query<About>, QueryRejection>) -> Response {
    let namespace = match about {
        Ok(Query(About { namespace })) => namespace,
        Err(rejection) => {
            let error = format!("ask for ?namespace=NAME or nothing: {}", rejection.body_text());
            return (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": error }))).into_response();
        }
    };
    if let Some(refusal) = pages.too_much_unread() {
        return refusal;
    }
    let _turn = pages.graph.acquire().await;
    let written = serde_json::to_vec(&status::graph(&pages.context, &namespace));
    yield_now().await;
    answer(written.map(|page| pages.count(page)).map_err(|error| error.to_string().into()), "application/json")
}

fn answer(page: Written, content_type: &'static str) -> Response {
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, content_type)], Body::from(page)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write this page: {error}\n")).into_response(),
    }
}

async fn nothing_here() -> Response {
    let error = "no such page; there are /health, /ready, /metrics, /api/v1/status and /api/v1/graph";
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response()
}

/// The status as JSON, written in slices: with very many services nobody else must wait until all
/// of them are written.
async fn write_status(summary: &Status, namespaces: &[NamespaceStatus]) -> io::Result<Vec<u8>> {
    let serde_json::Value::Object(fields) = serde_json::to_value(summary)? else {
        return Err(io::Error::other("a status is an object"));
    };
    let mut page = Vec::new();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "namespaces") {
        page.push(if page.is_empty() { b'{' } else { b',' });
        put(&mut page, name)?;
        page.push(b':');
        put(&mut page, value)?;
    }
    page.extend(b",\"namespaces\":[");
    for (nth, namespace) in namespaces.iter().enumerate() {
        page.extend(if nth == 0 { &b"{\"namespace\":"[..] } else { b",{\"namespace\":" });
        put(&mut page, &namespace.namespace)?;
        page.extend(b",\"services\":[");
        for (nth, service) in namespace.services.iter().enumerate() {
            if nth > 0 {
                page.push(b',');
            }
            put(&mut page, service)?;
            if nth % SLICE == SLICE - 1 {
                yield_now().await;
            }
        }
        page.extend(b"]}");
        yield_now().await;
    }
    page.extend(b"]}");
    Ok(page)
}

fn put<T: Serialize + ?Sized>(page: &mut Vec<u8>, value: &T) -> io::Result<()> {
    Ok(serde_json::to_writer(page, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::{
        ServiceSummary, Timestamp,
        status::{BrakeStatus, DoorsStatus, MemoryStatus, RoundsStatus, StoreStatus},
    };

    fn status(namespaces: Vec<NamespaceStatus>) -> Status {
        let at = Timestamp::from_millis(1);
        let store = StoreStatus {
            kind: "memory".to_owned(),
            location: "\"namespaces\":[]".to_owned(),
            available: true,
            since: at,
            last_error: None,
            commits: 0,
            unwritten: 0,
            refills: 0,
            damaged: 0,
            repaired: 0,
        };
        Status {
            server: "roundsman-1".to_owned(),
            version: "1".to_owned(),
            started_at: at,
            now: at,
            ready: true,
            store,
            rounds: RoundsStatus::default(),
            brake: BrakeStatus::default(),
            doors: DoorsStatus::default(),
            memory: MemoryStatus::default(),
            namespaces,
            recent: Vec::new(),
            replicas: Vec::new(),
        }
    }

    fn namespace(name: &str, services: usize) -> NamespaceStatus {
        let summary = |n| -> ServiceSummary {
            serde_json::from_value(serde_json::json!({
                "name": format!("service-{n}"), "instances": n, "starting": 0, "passing": n, "suspect": 0,
                "draining": 0, "evicted": 0,
            }))
            .unwrap()
        };
        NamespaceStatus { namespace: name.parse().unwrap(), services: (0..services).map(summary).collect() }
    }

    #[tokio::test]
    async fn a_status_in_slices_is_the_status_in_one() {
        for namespaces in [vec![], vec![namespace("a", 0)], vec![namespace("a", 2), namespace("b", 3 * SLICE + 1)]] {
            let whole = status(namespaces.clone());
            let page = write_status(&status(Vec::new()), &namespaces).await.unwrap();
            assert_eq!(serde_json::from_slice::<Status>(&page).unwrap(), whole);
        }
    }

    #[test]
    fn last_words_are_answers_with_a_sentence() {
        for words in [FULL, GAVE_WAY, TOO_SLOW, NO_HTTP] {
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 ") && head.contains("connection: close") && body.ends_with('\n'));
        }
    }
}
