//! What is answered on which path.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use roundsman_protocol::{DiscoveryError, Namespace};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::shared_page::{Fault, SharedPage, Written};
use crate::{
    api::{Api, Sight},
    context::Context,
    principal::{Door, Principal},
};

/// Answers that clients have not read yet may take so many bytes. Over it only those pages are
/// answered that are always small.
const MAX_UNREAD: usize = 64 * 1_024 * 1_024;

/// What the pages are made of.
pub(super) struct Pages {
    context: Arc<Context>,
    /// For pages that are not about one namespace.
    api: Api,
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
        let api = api(&context, Namespace::default());
        let (metrics, status) = (SharedPage::default(), SharedPage::default());
        Arc::new(Self { context, api, metrics, status, graph: Semaphore::new(1), unread: Arc::default() })
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
        self.api.caller().refused_as("unread-answers");
        Some(busy(&format!("answers that clients have not read yet take {unread} bytes; try again in a few seconds")))
    }
}

/// What whoever asks for a page can ask. They are not told apart: nothing is changed here.
fn api(context: &Arc<Context>, namespace: Namespace) -> Api {
    Api::new(Arc::clone(context), namespace, Principal::new(Door::Http, None, None))
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
    if pages.api.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store is not loaded yet, or the server is stopping\n")
        .into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let writer = Arc::clone(&pages);
    let write = async move {
        let page = writer.api.metrics().map_err(|error| Fault::broken(&error))?;
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
        let page = written(writer.api.status(Sight::Server, |status| serde_json::to_vec(&status)).await)?;
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
    let graph = api(&pages.context, namespace).graph(|graph| serde_json::to_vec(&graph)).await;
    answer(written(graph).map(|page| pages.count(page)), "application/json")
}

/// What was written where nobody else waits for it.
fn written(page: Result<serde_json::Result<Vec<u8>>, DiscoveryError>) -> Result<Vec<u8>, Fault> {
    page.map_err(|error| Fault::Busy(error.to_string().into()))?.map_err(|error| Fault::broken(&error))
}

fn answer(page: Written, content_type: &'static str) -> Response {
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, content_type)], Body::from(page)).into_response(),
        Err(Fault::Busy(error)) => busy(&error),
        Err(Fault::Broken(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write this page: {error}\n")).into_response()
        }
    }
}

async fn nothing_here() -> Response {
    let error = "no such page; there are /health, /ready, /metrics, /api/v1/status and /api/v1/graph";
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response()
}
