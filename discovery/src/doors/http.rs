//! The HTTP door: health, readiness, metrics, status and the graph of who calls whom. It opens before the store is loaded, so that probes of a starting server are answered.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use roundsman_protocol::Namespace;
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{context::Context, status};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests in flight may take once the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(context.config.max_http_connections));
    let router = router(Arc::clone(&context));
    let connections = TaskTracker::new();
    loop {
        // A permit before accepting: beyond the limit connections wait in the kernel's queue, which is short.
        let Some(Ok(permit)) = stop.run_until_cancelled(Arc::clone(&permits).acquire_owned()).await else { break };
        match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => {
                let connection = converse(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
        tracing::debug!(connections = connections.len(), "HTTP connections cut off");
    }
}

async fn converse(stream: TcpStream, router: Router, stop: CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(whole_status))
        .route("/api/v1/graph", get(graph))
        .fallback(nothing_here)
        .with_state(context)
}

async fn ready(State(context): State<Arc<Context>>) -> Response {
    if context.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store is not loaded yet, or the server is stopping\n")
        .into_response()
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.meters.export(&context) {
        Ok(page) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write metrics: {error}\n")).into_response(),
    }
}

async fn whole_status(State(context): State<Arc<Context>>) -> Response {
    Json(status::status(&context, None)).into_response()
}

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    #[serde(default)]
    namespace: Namespace,
}

async fn graph(State(context): State<Arc<Context>>, about: Result<Query<About>, QueryRejection>) -> Response {
    match about {
        Ok(Query(About { namespace })) => Json(status::graph(&context, &namespace)).into_response(),
        Err(rejection) => {
            let error = format!("ask for ?namespace=NAME or nothing: {}", rejection.body_text());
            (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": error }))).into_response()
        }
    }
}

async fn nothing_here() -> Response {
    let error = "no such page; there are /health, /ready, /metrics, /api/v1/status and /api/v1/graph";
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response()
}
