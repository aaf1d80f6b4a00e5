//! The HTTP door: `/product/{id}` to look, buy and undo. Every answer is JSON.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, State, rejection::PathRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::stock::{InvalidId, Product, ProductId, Refusal, SaleKey, Stock};

/// The header that names a sale, so that asking twice sells once.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An answer that is not the wished-for one: a status, and a sentence for the caller.
#[derive(Debug)]
pub struct Failure(StatusCode, String);

/// The sale that the caller names, if it names one.
#[derive(Debug)]
pub struct Key(Option<SaleKey>);

/// All routes, over this stock.
pub fn routes(stock: Arc<Stock>) -> Router {
    Router::new()
        .route("/product/{id}", get(show).put(sell).delete(undo))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "try GET /product/aaa".into()))
        .method_not_allowed_fallback(async || Failure(StatusCode::METHOD_NOT_ALLOWED, "try GET or PUT".into()))
        .with_state(stock)
}

async fn show(
    State(stock): State<Arc<Stock>>,
    id: Result<Path<ProductId>, PathRejection>,
) -> Result<Json<Product>, Failure> {
    let Path(id) = id?;
    stock.get(&id).map(Json).ok_or_else(|| Refusal::Unknown(id).into())
}

async fn sell(
    State(stock): State<Arc<Stock>>,
    id: Result<Path<ProductId>, PathRejection>,
    Key(key): Key,
) -> Result<Json<Product>, Failure> {
    let Path(id) = id?;
    let product = stock.sell(&id, key.as_ref())?;
    let key = key.as_ref().map(tracing::field::display);
    tracing::info!(product = %product.id, key, left = product.quantity, "sold");
    Ok(Json(product))
}

async fn undo(
    State(stock): State<Arc<Stock>>,
    id: Result<Path<ProductId>, PathRejection>,
    Key(key): Key,
) -> Result<Json<Product>, Failure> {
    let Path(id) = id?;
    let key = key.ok_or_else(|| Failure(StatusCode::BAD_REQUEST, format!("name the sale in {IDEMPOTENCY_KEY}")))?;
    let product = stock.undo(&id, &key)?;
    tracing::info!(product = %product.id, %key, left = product.quantity, "sale undone");
    Ok(Json(product))
}

// === impl Key ===

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY) else { return Ok(Self(None)) };
        let key = value.to_str().map_err(|_| InvalidId).and_then(|text| text.to_owned().try_into());
        key.map(|key| Self(Some(key)))
            .map_err(|rule| Failure(StatusCode::BAD_REQUEST, format!("{IDEMPOTENCY_KEY} {rule}")))
    }
}

// === impl Failure ===

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::SoldOut(_) => StatusCode::CONFLICT,
            Refusal::Undone => StatusCode::GONE,
            Refusal::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self(status, refusal.to_string())
    }
}

impl From<PathRejection> for Failure {
    fn from(_: PathRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("the product id {InvalidId}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
