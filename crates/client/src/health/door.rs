//! `/health` for axum.

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Health, HealthReport};

impl Health {
    /// A router with the one route `/health`, to be merged into that of the service.
    ///
    /// ```
    /// # use roundsman::Health;
    /// let health = Health::new().check("disk", async || Ok::<(), String>(()));
    /// let app: axum::Router = axum::Router::new().merge(health.router());
    /// ```
    pub fn router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let health = self.clone();
        Router::new().route("/health", get(async move || health.report().await))
    }
}

impl IntoResponse for HealthReport {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fresh = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        (status, fresh, Json(self)).into_response()
    }
}
