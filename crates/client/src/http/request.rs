//! A request to be sent to whoever of a service can answer it.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use roundsman_protocol::{Instance, InstanceId};
use serde::Serialize;

use super::{Body, Error, Service, call::Plan, draft::Draft};
use crate::trace::TraceContext;

/// A call to be made; made by [`Service::get`] and the like. Nothing happens until [`Request::send`] or [`Request::stream`].
///
/// ```no_run
/// # #[derive(serde::Serialize)] struct Sale { product: &'static str }
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let answer = discovery
///     .http("product")
///     .post("/sale")
///     .header("idempotency-key", "8e03978e")
///     .idempotent(true)
///     .json(&Sale { product: "aaa" })
///     .timeout(Duration::from_secs(2))
///     .send()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent until `send`"]
pub struct Request {
    pub(super) service: Service,
    pub(super) draft: Result<Draft, Error>,
    pub(super) plan: Plan,
    pub(super) trace: Option<TraceContext>,
}

// === impl Request ===

impl Request {
    pub(super) fn new(service: Service, method: Method, path: &str) -> Self {
        let mut plan = Plan::new(service.settings.limits.clone(), &method);
        plan.limits.on_route(path);
        let draft = service.name.clone().map_err(Error::from).and_then(|name| Draft::new(&name, method, path));
        Self { service, draft, plan, trace: None }
    }

    /// Adds a header. One that is none is told by [`Request::send`].
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.with(|draft| draft.header(name, value))
    }

    /// Sets headers, in place of those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|draft| {
            draft.headers(headers);
            Ok(())
        })
    }

    /// Adds to the query of the URL: anything that serializes to pairs.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// let found = discovery.http("product").get("/products").query(&[("colour", "green")]).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn query(self, query: &(impl Serialize + ?Sized)) -> Self {
        self.with(|draft| draft.query(query))
    }

    /// Sets the body: bytes, a text, or a stream ([`Body::wrap`], [`Body::from_stream`]). A stream cannot be sent twice: such a
    /// request is not hedged, and is repeated only where nobody has begun to read it, because there was no connection. One that
    /// breaks off on its own side fails the call, and counts against no instance.
    ///
    /// ```no_run
    /// # use roundsman::http::Body;
    /// # async fn example(discovery: roundsman::Discovery, file: Body) -> Result<(), roundsman::http::Error> {
    /// let request = discovery.http("product").put("/pictures/aaa").body(file);
    /// let answer = request.timeout(std::time::Duration::from_secs(600)).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|draft| {
            draft.body(body.into());
            Ok(())
        })
    }

    /// Sets the body and its content type: this value as JSON.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.with(|draft| draft.json(body))
    }

    /// How long the call may take in all: waiting for the first list of instances, all tries, the pauses between
    /// them and the body. By default [`DEFAULT_TIMEOUT`](super::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.plan.limits.timeout = timeout;
        self
    }

    /// How long one try may take, its body included; then it is given up, whether or not another one may follow. By default
    /// as long as the call: an instance that is slow is not dead, and [another one is asked beside it](Request::hedge_after).
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.plan.limits.try_timeout = Some(timeout);
        self
    }

    /// How long an answer is waited for before another instance is asked as well, while the first goes on: so long, and no
    /// less than 99 of 100 answers of that instance took of late. The first answer wins, and the other try is dropped.
    /// By default [`DEFAULT_HEDGE_AFTER`](super::DEFAULT_HEDGE_AFTER). Only for what is [idempotent](Request::idempotent), and
    /// as far as the budget for second tries goes; the time of the whole call turns it off.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// // Whoever has not answered after 50 ms, and usually has by then, is not waited for alone.
    /// let answer = discovery.http("product").get("/products").hedge_after(Duration::from_millis(50)).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn hedge_after(mut self, time: Duration) -> Self {
        self.plan.limits.hedge_after = time;
        self
    }

    /// How long the call waits, counted from its beginning and within its [time](Request::timeout), when the service has no instance
    /// that can be called, or its only one refuses the connection. By default
    /// [`DEFAULT_WAIT_FOR_INSTANCE`](super::DEFAULT_WAIT_FOR_INSTANCE); zero does not wait. A service that nobody registered is not
    /// waited for: that is most likely a mistyped name.
    pub fn wait_for_instance(mut self, time: Duration) -> Self {
        self.plan.limits.wait_for_instance = time;
        self
    }

    /// How many tries the call has, the first included. By default [`DEFAULT_TRIES`](super::DEFAULT_TRIES).
    pub fn tries(mut self, tries: u32) -> Self {
        self.plan.limits.tries = tries;
        self
    }

    /// Longest body that [`Request::send`] reads, in bytes. By default [`DEFAULT_BODY_LIMIT`](super::DEFAULT_BODY_LIMIT).
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.plan.limits.body = bytes;
        self
    }

    /// Whether carrying it out twice, also on two instances, is the same as once. By default the method says so: GET,
    /// HEAD, OPTIONS, TRACE, PUT and DELETE are. What is not idempotent is sent again only when it is certain
    /// that it has not reached its instance.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.plan.idempotent = idempotent;
        self
    }

    /// Goes to the instance for this key, as [`Resolver::pick_for`](crate::Resolver::pick_for) chooses it; a try after a
    /// failed one goes to any.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// // The same user finds the same instance, and its cache warm.
    /// let answer = discovery.http("profile").get("/user/7").key("user-7").send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.plan.key = Some(key.as_ref().into());
        self
    }

    /// Goes to this instance and no other, also when it is no longer handed out.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// let product = discovery.http("product");
    /// let sale = product.post("/sale").send().await?;
    /// product.delete("/sale/1").to(sale.instance()).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn to(mut self, instance: &Arc<Instance>) -> Self {
        self.plan.to = Some(Arc::clone(instance));
        self
    }

    /// Goes to none of these: for callers that were there already. With nobody else to ask that is
    /// [`Error::NobodyThere`].
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// let product = discovery.http("product");
    /// let mut asked = Vec::new();
    /// // Every instance has a stock of its own: one that is sold out says nothing about the others.
    /// while let Ok(answer) = product.put("/product/aaa").idempotent(false).avoiding(&asked).send().await {
    ///     if answer.status().is_success() {
    ///         break;
    ///     }
    ///     asked.push(answer.instance().id.clone());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn avoiding(mut self, instances: &[InstanceId]) -> Self {
        self.plan.avoiding = instances.to_vec();
        self
    }

    /// Forwards this trace context in place of [the one around the call](TraceContext::scope).
    pub fn trace(mut self, trace: &TraceContext) -> Self {
        self.trace = Some(trace.clone());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Draft) -> Result<(), Error>) -> Self {
        if let Ok(draft) = &mut self.draft
            && let Err(error) = change(draft)
        {
            self.draft = Err(error);
        }
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("draft", &self.draft).field("plan", &self.plan).finish_non_exhaustive()
    }
}
