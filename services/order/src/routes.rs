//! The HTTP door: `/purchase/{id}`. Every answer is JSON.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{
    shop::{Receipt, Refusal, Shop},
    till::{InvalidId, ProductId},
};

/// An answer that is not the wished-for one: a status, and a sentence for the caller.
#[derive(Debug)]
pub struct Failure(StatusCode, String);

/// All routes, over this shop.
pub fn routes(shop: Shop) -> Router {
    // GET buys because it can be typed into a browser; POST is the right verb. HEAD must not buy, which is what
    // axum would make of a GET route.
    let purchase = get(purchase).post(purchase).head(method_not_allowed);
    Router::new()
        .route("/purchase/{id}", purchase)
        .fallback(async || Failure(StatusCode::NOT_FOUND, "try GET /purchase/aaa".into()))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shop)
}

async fn purchase(State(shop): State<Shop>, id: Result<Path<ProductId>, PathRejection>) -> Result<Response, Failure> {
    let Path(id) = id?;
    let receipt: Receipt = shop.purchase(id).await?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(receipt)).into_response())
}

async fn method_not_allowed() -> Failure {
    Failure(StatusCode::METHOD_NOT_ALLOWED, "try POST".into())
}

// === impl Failure ===

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NoSuchProduct(_) => StatusCode::NOT_FOUND,
            Refusal::SoldOut(_) => StatusCode::CONFLICT,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, refusal.to_string())
    }
}

impl From<PathRejection> for Failure {
    fn from(_: PathRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, InvalidId.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
