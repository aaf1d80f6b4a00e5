//! Calls over HTTP by the name of a service: find it, choose an instance, call it, and go to another when that fails.
//!
//! [`Discovery::http`](crate::Discovery::http) is where it begins:
//!
//! ```no_run
//! # #[derive(serde::Deserialize)] struct Product { name: String }
//! # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
//! let answer = discovery.http("product").get("/product/aaa").send().await?;
//! if answer.status().is_success() {
//!     let product: Product = answer.json()?;
//!     println!("{} by {}", product.name, answer.instance().id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a call does
//!
//! - The service is followed from its first call on, as by a [`Resolver`](crate::Resolver): later calls ask no server,
//!   and go on when there is none.
//! - Each try goes to the instance that [the policy](Service::policy) picks, by default [`Policy::PeakEwma`]. How it
//!   went is remembered, so that instances in trouble are passed over.
//! - A try that fails is repeated on another instance, at most [`DEFAULT_TRIES`] tries in all: when the connection
//!   failed or broke (also in the middle of the body), and when the answer is 500, 502, 503 or 504. That goes for
//!   methods that may be repeated: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, and others that are
//!   [said to be](Request::idempotent). Any other is repeated only if it certainly did not reach its instance.
//! - Slow is not dead: when no answer came in the time that all but one in a hundred answers of the instance take, and in
//!   [`DEFAULT_HEDGE_AFTER`] at least, another instance is asked while the first goes on. The first answer wins. Only
//!   what may be repeated is asked twice.
//! - Second tries of both kinds are budgeted, so that a service in trouble does not drown in them: all calls of one service together are
//!   repeated for at most a tenth of them, and one a second. A refused connection reached nobody, and costs nothing.
//! - When nobody is there, instances that drain are called, which serve still. With none of those either, the call waits
//!   for an instance, [`DEFAULT_WAIT_FOR_INSTANCE`] at most: one that restarts within that fails nobody.
//! - The whole call has a [deadline](Request::timeout), by default [`DEFAULT_TIMEOUT`].
//! - The [trace context](crate::TraceContext) of the request that is being served goes along.
//!
//! An answer is an answer, whatever its status: an [`Error`] means that there was none.

mod attempt;
mod call;
mod callee;
mod choice;
mod engine;
mod error;
mod failure;
mod leaving;
mod past;
mod request;
mod response;
mod waiting;

use std::{sync::Arc, time::Duration};

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use roundsman_protocol::{Host, Query, ServiceName};

pub(crate) use callee::Calls;
pub(crate) use choice::{Choice, Split};
pub use error::{Error, Try};
pub use request::Request;
pub use response::Response;
#[cfg(feature = "middleware")]
pub(crate) use {
    attempt::Sender,
    call::{Call, Plan},
    engine::Answered,
    failure::Failure,
};

use crate::{balance::Policy, discovery::Discovery, share::Share};

/// How long a call may take in all, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer is waited for at least before another instance is asked as well, unless told otherwise.
pub const DEFAULT_HEDGE_AFTER: Duration = Duration::from_secs(1);

/// How long connecting to an instance may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How many tries a call has, the first included, unless told otherwise.
pub const DEFAULT_TRIES: u32 = 3;

/// How long a call waits for an instance when nobody is there, unless told otherwise.
pub const DEFAULT_WAIT_FOR_INSTANCE: Duration = Duration::from_secs(2);

/// Longest body that [`Request::send`] reads, in bytes, unless told otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What follows the service's name in URLs.
pub(crate) const SUFFIX: &str = ".roundsman";

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
    discovery: Discovery,
    name: Result<ServiceName, crate::Error>,
    choice: Choice,
    limits: Limits,
}

/// How long and how often.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    /// Beginnings of paths, and how long calls to those may take.
    pub(crate) routes: Vec<(Box<str>, Duration)>,
    /// `None`: as long as the call.
    pub(crate) try_timeout: Option<Duration>,
    pub(crate) hedge_after: Duration,
    pub(crate) wait_for_instance: Duration,
    pub(crate) tries: u32,
    pub(crate) body: usize,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(discovery: &Discovery, name: Result<ServiceName, crate::Error>) -> Self {
        Self { discovery: discovery.clone(), name, choice: Choice::default(), limits: Limits::default() }
    }

    /// How instances are chosen. By default by [`Policy::PeakEwma`]: around the slow and the failing.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.choice.policy = policy;
        self
    }

    /// Calls only instances in this zone, for as long as it has any; then those of all zones.
    pub fn prefer_zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.choice.zone = Some(zone.into());
        self
    }

    /// Calls only instances whose address is on this host, an IP address or a name as the instances register it.
    pub fn same_host(mut self, host: &str) -> Self {
        match host.parse::<Host>() {
            Ok(host) => self.choice.host = Some(host),
            Err(invalid) => self.name = self.name.and(Err(invalid.into())),
        }
        self
    }

    /// Calls only instances that a query matches: by version, tag, zone, metadata or [subset](Query::subset). It names no
    /// service, or this one. Calls wait for such an instance, and go to no other.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// use roundsman::Query;
    ///
    /// let new = discovery.http("product").select(Query::default().version("2").tag("fruit"));
    /// let answer = new.get("/product/aaa").send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn select(mut self, query: Query) -> Self {
        let selected = self.choice.select(query, self.name.as_ref().ok());
        self.name = self.name.and_then(|name| selected.map(|()| name).map_err(Into::into));
        self
    }

    /// Gives versions a share of the calls, from 0 to 1; what is left goes to instances of all other versions. Calls with the
    /// same [key](Request::key) go to the same part. A version without any instance that is well has no calls: they
    /// go to the others.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// // One user in twenty sees the new version, at each visit.
    /// let product = discovery.http("product").split([("v2", 0.05)]);
    /// let answer = product.get("/product/aaa").key("user-7").send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split<V: Into<Box<str>>>(mut self, shares: impl IntoIterator<Item = (V, f64)>) -> Self {
        match Split::try_new(shares) {
            Ok(split) => self.choice.split = Some(Arc::new(split)),
            Err(invalid) => self.name = self.name.and(Err(invalid.into())),
        }
        self
    }

    /// Calls only so many of the instances, chosen by the servers; see [`Resolve::subset`](crate::Resolve::subset). Calls under
    /// way on one that leaves the subset go on to their end.
    pub fn subset(mut self, size: u32) -> Self {
        self.choice.share = Some(Share::new(None, size));
        self
    }

    /// The same under a name of one's own; see [`Resolve::subset_as`](crate::Resolve::subset_as).
    pub fn subset_as(mut self, client: impl Into<Box<str>>, size: u32) -> Self {
        self.choice.share = Some(Share::new(Some(client.into()), size));
        self
    }

    /// How long a call may take in all; see [`Request::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// How long a call may take to paths that begin so, in place of the [general time](Service::timeout). Where several do, the longest
    /// of them counts.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// let product = discovery.http("product").timeout_for("/reports/", Duration::from_secs(60));
    /// let answer = product.get("/reports/2026").send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout_for(mut self, path: impl Into<Box<str>>, timeout: Duration) -> Self {
        self.limits.routes.push((path.into(), timeout));
        self
    }

    /// How long one try may take; see [`Request::try_timeout`].
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.limits.try_timeout = Some(timeout);
        self
    }

    /// How long an answer is waited for before another instance is asked as well; see [`Request::hedge_after`].
    pub fn hedge_after(mut self, time: Duration) -> Self {
        self.limits.hedge_after = time;
        self
    }

    /// How long a call waits for an instance when nobody is there; see [`Request::wait_for_instance`].
    pub fn wait_for_instance(mut self, time: Duration) -> Self {
        self.limits.wait_for_instance = time;
        self
    }

    /// How many tries a call has; see [`Request::tries`].
    pub fn tries(mut self, tries: u32) -> Self {
        self.limits.tries = tries;
        self
    }

    /// Longest body that [`Request::send`] reads, in bytes. By default [`DEFAULT_BODY_LIMIT`].
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.limits.body = bytes;
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

    /// A PUT.
    pub fn put(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::PUT, path)
    }

    /// A PATCH. Not repeated once it may have been sent, unless it is said to be [idempotent](Request::idempotent).
    pub fn patch(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::PATCH, path)
    }

    /// A DELETE.
    pub fn delete(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Any method. A path that is none is told by [`Request::send`].
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> Request {
        Request::new(self.clone(), method, path.as_ref())
    }
}

// === impl Limits ===

impl Limits {
    /// Takes the time that was said for this path, if any was.
    pub(crate) fn on_route(&mut self, path: &str) {
        let routes = self.routes.iter().filter(|(route, _)| path.starts_with(&**route));
        if let Some((_, timeout)) = routes.max_by_key(|(route, _)| route.len()) {
            self.timeout = *timeout;
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            routes: Vec::new(),
            try_timeout: None,
            hedge_after: DEFAULT_HEDGE_AFTER,
            wait_for_instance: DEFAULT_WAIT_FOR_INSTANCE,
            tries: DEFAULT_TRIES,
            body: DEFAULT_BODY_LIMIT,
        }
    }
}
