//! A service to be called, and how.

use std::time::Duration;

use http::Method;
use roundsman_protocol::ServiceName;

use super::{
    Request,
    settings::{Settings, path_settings, settings},
};
use crate::discovery::Discovery;

/// A service to be called; made by [`Discovery::http`]. Cheap to make and to clone.
///
/// What is set here holds for all requests made of it.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let products = discovery.http("product").prefer_zone("eu-1a").timeout(Duration::from_secs(2));
/// let apple = products.get("/product/aaa").send().await?;
/// let pear = products.get("/product/bbb").send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a service is called by a request made of it"]
pub struct Service {
    pub(super) discovery: Discovery,
    pub(super) name: Result<ServiceName, crate::Error>,
    pub(super) settings: Settings,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(discovery: &Discovery, name: Result<ServiceName, crate::Error>) -> Self {
        Self { discovery: discovery.clone(), name, settings: Settings::default() }
    }

    settings!();
    path_settings!();

    /// How long a call may take in all; see [`Request::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.timeout = timeout;
        self
    }

    /// Longest body that [`Request::send`] reads, in bytes. By default [`DEFAULT_BODY_LIMIT`](super::DEFAULT_BODY_LIMIT).
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.settings.limits.body = bytes;
        self
    }

    /// A GET. `path` begins with a slash, and may carry a query.
    pub fn get(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::GET, path)
    }

    /// A HEAD.
    pub fn head(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::HEAD, path)
    }

    /// A POST. Not repeated once it may have been sent, unless it is said to be [idempotent](Request::idempotent).
    pub fn post(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::POST, path)
    }

    /// A PUT. Its method says that carrying it out twice is the same as once: it is repeated when it fails, and one that is not
    /// answered within a second or so is sent to a second instance beside the first ([`Request::hedge_after`]). One that must be
    /// carried out only once is [`idempotent(false)`](Request::idempotent).
    pub fn put(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::PUT, path)
    }

    /// A PATCH. Not repeated once it may have been sent, unless it is said to be [idempotent](Request::idempotent).
    pub fn patch(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::PATCH, path)
    }

    /// A DELETE. May be carried out twice, as a [PUT](Service::put), unless it is
    /// [`idempotent(false)`](Request::idempotent).
    pub fn delete(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Any method. A path that is none is told by [`Request::send`].
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> Request {
        Request::new(self.clone(), method, path.as_ref())
    }

    fn name(&self) -> Option<&ServiceName> {
        self.name.as_ref().ok()
    }
}
