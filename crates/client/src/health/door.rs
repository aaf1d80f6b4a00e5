//! `/health` for axum.

use axum::{
    Json, Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Health, HealthReport, INSTANCE_HEADER};

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
        // An id is ASCII, and so is a list of them.
        let who = self.instance_header().and_then(|ids| HeaderValue::try_from(ids).ok());
        let who = who.map(|ids| [(HeaderName::from_static(INSTANCE_HEADER), ids)]);
        let mut response = (status, fresh, Json(self)).into_response();
        response.headers_mut().extend(who.into_iter().flatten());
        response
    }
}
