//! Example service: reserves what product instances, found by name, still have. The whole of it.

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use roundsman::{Discovery, http, service};
use serde_json::{Value, json};

/// How many of each product are reserved.
type Shelf = Arc<Mutex<HashMap<String, u64>>>;

#[derive(serde::Deserialize)]
struct Product {
    quantity: u64,
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such product")]
    NoSuchProduct,
    #[error("all {0} that are left are reserved")]
    AllReserved(u64),
    #[error("{0}; try again in a second")]
    NobodySells(#[from] http::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    let service = service::App::new("inventory", 8080).about("Example service: reserves stock");
    service.version(env!("CARGO_PKG_VERSION")).run(start).await
}

async fn start(start: service::Start) -> Result<Router, service::Failure> {
    Ok(Router::new().route("/reserve/{id}", post(reserve)).with_state((start.discovery, Shelf::default())))
}

/// Reserves one, if the product instance that is asked has more than are reserved already.
async fn reserve(
    State((discovery, reserved)): State<(Discovery, Shelf)>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let plain = |id: &String| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let id = id.ok().map(|Path(id)| id).filter(plain).ok_or(Refusal::NoSuchProduct)?;
    let answer = discovery.http("product").get(format!("/product/{id}")).send().await?;
    if [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&answer.status()) {
        return Err(Refusal::NoSuchProduct);
    }
    let Product { quantity } = answer.error_for_status()?.json()?;
    let mut reserved = reserved.lock().unwrap_or_else(PoisonError::into_inner);
    let count = reserved.entry(id.clone()).or_default();
    if *count >= quantity {
        return Err(Refusal::AllReserved(quantity));
    }
    *count += 1;
    tracing::info!(product = id, reserved = *count, "reserved");
    Ok(Json(json!({ "id": id, "reserved": *count, "left": quantity - *count })))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.to_string() }));
        match self {
            Self::NoSuchProduct => (StatusCode::NOT_FOUND, body).into_response(),
            Self::AllReserved(_) => (StatusCode::CONFLICT, body).into_response(),
            Self::NobodySells(_) => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response(),
        }
    }
}
