//! An answer, read to its end.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use roundsman_protocol::Instance;
use serde::de::DeserializeOwned;

use super::Error;
use crate::balance::Verdict;

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
    pub(super) verdict: Option<Arc<Verdict>>,
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

    /// The answer itself, unless its status is one of an error: 400 to 599. One from 500 on is [rejected](Response::reject).
    ///
    /// # Errors
    /// [`Error::Status`].
    pub fn error_for_status(mut self) -> Result<Self, Error> {
        if self.status.is_server_error() {
            self.refuse();
        }
        if self.status.is_client_error() || self.status.is_server_error() {
            return Err(Error::Status { instance: self.instance, status: self.status });
        }
        Ok(self)
    }

    /// Says that the answer is of no use, whatever its status: the call counts as failed, and after some such calls the
    /// instance is passed over, as after any failures (see [`CircuitBreaker`](crate::CircuitBreaker)). Returns
    /// [`Error::Unreadable`] with the reason.
    ///
    /// ```no_run
    /// # #[derive(serde::Deserialize)] struct Product { name: String }
    /// # async fn example(discovery: roundsman::Discovery) -> Result<Product, roundsman::http::Error> {
    /// let answer = discovery.http("product").get("/product/aaa").send().await?.error_for_status()?;
    /// match answer.json() {
    ///     Ok(product) => Ok(product),
    ///     Err(error) => Err(answer.reject(error.to_string())),
    /// }
    /// # }
    /// ```
    pub fn reject(mut self, reason: impl fmt::Display) -> Error {
        self.refuse();
        Error::Unreadable { instance: self.instance, status: self.status, detail: reason.to_string() }
    }

    /// Tells the instance's circuit, once.
    fn refuse(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            verdict.rejected();
        }
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
