//! An answer, read to its end.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use roundsman_protocol::Instance;
use serde::de::DeserializeOwned;

use super::Error;

/// The answer to a call, read to its end; made by [`Request::send`](super::Request::send).
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
/// let answer = discovery.http("product").get("/product/aaa").send().await?;
/// println!("{} from {} on try {}", answer.status(), answer.instance().id, answer.tries());
/// println!("{}", answer.error_for_status()?.text());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) instance: Arc<Instance>,
    pub(super) tries: u32,
}

// === impl Response ===

impl Response {
    /// The status. One of 500, 502, 503 and 504 means that no try brought another, or that there was no other.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body read as JSON, whatever the status and the content type say.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Unreadable {
            instance: Arc::clone(&self.instance),
            status: self.status,
            detail: error.to_string(),
        })
    }

    /// The answer itself, unless its status is one of an error: 400 to 599.
    ///
    /// # Errors
    /// [`Error::Status`].
    pub fn error_for_status(self) -> Result<Self, Error> {
        if self.status.is_client_error() || self.status.is_server_error() {
            return Err(Error::Status { instance: self.instance, status: self.status });
        }
        Ok(self)
    }

    /// Who answered.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// On which try, counted from one.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}
