//! Calls by the name of a service for a `reqwest` client of one's own, as a layer of [`reqwest_middleware`].

use async_trait::async_trait;
use http::{Extensions, HeaderMap, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::Next;
use roundsman_protocol::{Host, Query, ServiceName};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

use crate::{
    balance::Policy,
    discovery::Discovery,
    http::{Answered, Call, Choice, Error, Failure, Limits, Plan, SUFFIX, Sender, Split},
    share::Share,
    trace,
};

/// Resolves, balances and repeats requests to `http://SERVICE.roundsman/…`; made by [`Discovery::middleware`]. Requests to any
/// other host pass through untouched.
///
/// It does what [`roundsman::http`](crate::http) does, with these differences: an answer is returned as soon as its head is
/// there, so that a body that breaks off is the caller's to deal with, and a request whose body is a stream is
/// tried once. A timeout of the request itself takes the place of [`Middleware::timeout`], and then covers the body.
/// What the client was built with holds as well. Layers that come after this one see each try, those before it one
/// call; a layer that retries is best left out.
///
/// Who answered is among the response's extensions. An error is a [`roundsman::http::Error`](crate::http::Error) within a
/// [`reqwest_middleware::Error::Middleware`].
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
/// use reqwest_middleware::ClientBuilder;
///
/// let client = ClientBuilder::new(reqwest::Client::new()).with(discovery.middleware()).build();
/// let answer = client.get("http://product.roundsman/product/aaa").send().await?;
/// println!("{}", answer.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is of use in a client"]
pub struct Middleware {
    discovery: Discovery,
    choice: Choice,
    limits: Limits,
    /// What is wrong with the settings.
    invalid: Option<Error>,
}

/// An extension of a request: whether carrying it out twice is the same as once. By default its method says so; see
/// [`http::Request::idempotent`](crate::http::Request::idempotent).
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), Box<dyn std::error::Error>> {
/// use roundsman::middleware::Idempotent;
///
/// let answer = client.post("http://product.roundsman/sale/8e03978e").with_extension(Idempotent(true)).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent(
    /// Whether it is.
    pub bool,
);

/// An extension of a request: it goes to the instance for this key; see [`http::Request::key`](crate::http::Request::key).
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), Box<dyn std::error::Error>> {
/// use roundsman::middleware::Key;
///
/// let answer = client.get("http://profile.roundsman/user/7").with_extension(Key::new("user-7")).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

/// The layers after this one, and the client behind them.
struct Rest<'a> {
    next: Next<'a>,
    /// Each try has its own: several may be under way. What the last one to end left in them stays.
    extensions: Mutex<Extensions>,
    /// When the body must be read, if the request says so.
    deadline: Option<Instant>,
    /// An error of another layer, which is none of our business.
    foreign: Mutex<Option<reqwest_middleware::Error>>,
}

// === impl Middleware ===

impl Middleware {
    pub(crate) fn new(discovery: &Discovery) -> Self {
        Self { discovery: discovery.clone(), choice: Choice::default(), limits: Limits::default(), invalid: None }
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
            Err(invalid) => self.invalid = Some(crate::Error::from(invalid).into()),
        }
        self
    }

    /// Calls only instances that a query matches; see [`http::Service::select`](crate::http::Service::select). It names no service:
    /// the URL does.
    pub fn select(mut self, query: Query) -> Self {
        if let Err(invalid) = self.choice.select(query, None) {
            self.invalid = Some(crate::Error::from(invalid).into());
        }
        self
    }

    /// Gives versions a share of the calls; see [`http::Service::split`](crate::http::Service::split). Calls with the same [`Key`]
    /// go to the same part.
    pub fn split<V: Into<Box<str>>>(mut self, shares: impl IntoIterator<Item = (V, f64)>) -> Self {
        match Split::try_new(shares) {
            Ok(split) => self.choice.split = Some(Arc::new(split)),
            Err(invalid) => self.invalid = Some(crate::Error::from(invalid).into()),
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

    /// How long a call may take until the head of its answer is there, all tries included. By default
    /// [`http::DEFAULT_TIMEOUT`](crate::http::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// How long a call may take to paths that begin so, in place of the [general time](Middleware::timeout). Where several do, the longest
    /// of them counts.
    pub fn timeout_for(mut self, path: impl Into<Box<str>>, timeout: Duration) -> Self {
        self.limits.routes.push((path.into(), timeout));
        self
    }

    /// How long one try may take; see [`http::Request::try_timeout`](crate::http::Request::try_timeout).
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.limits.try_timeout = Some(timeout);
        self
    }

    /// How long an answer is waited for before another instance is asked as well; see
    /// [`http::Request::hedge_after`](crate::http::Request::hedge_after).
    pub fn hedge_after(mut self, time: Duration) -> Self {
        self.limits.hedge_after = time;
        self
    }

    /// How long a call waits for an instance when nobody is there;
    /// see [`http::Request::wait_for_instance`](crate::http::Request::wait_for_instance).
    pub fn wait_for_instance(mut self, time: Duration) -> Self {
        self.limits.wait_for_instance = time;
        self
    }

    /// How many tries a call has, the first included. By default [`http::DEFAULT_TRIES`](crate::http::DEFAULT_TRIES).
    pub fn tries(mut self, tries: u32) -> Self {
        self.limits.tries = tries;
        self
    }

    /// What service a request is for; none, if its host is not one of ours.
    fn service(&self, request: &Request) -> Result<Option<ServiceName>, Error> {
        let url = request.url();
        let Some(name) = url.host_str().and_then(|host| host.strip_suffix(SUFFIX)) else { return Ok(None) };
        if url.scheme() != "http" || url.port().is_some() {
            let rule = format!("{url} must begin with http:// and have no port: that is looked up with the address");
            return Err(Error::Invalid(rule));
        }
        match &self.invalid {
            Some(invalid) => Err(invalid.clone()),
            None => ServiceName::try_new(name).map(Some).map_err(|invalid| crate::Error::from(invalid).into()),
        }
    }

    fn plan(&self, request: &Request, extensions: &Extensions) -> Plan {
        let mut plan = Plan::new(self.limits.clone(), request.method());
        plan.limits.on_route(request.url().path());
        if let Some(timeout) = request.timeout() {
            plan.limits.timeout = *timeout;
        }
        if let Some(Idempotent(idempotent)) = extensions.get() {
            plan.idempotent = *idempotent;
        }
        plan.key = extensions.get().map(|Key(key)| key.clone());
        plan
    }
}

// === impl Key ===

impl Key {
    /// Any bytes.
    #[must_use]
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Self(key.as_ref().into())
    }
}

#[async_trait]
impl reqwest_middleware::Middleware for Middleware {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let ours = |error: Error| reqwest_middleware::Error::middleware(error);
        let Some(service) = self.service(&request).map_err(ours)? else { return next.run(request, extensions).await };
        trace::forward(None, request.headers_mut());
        let plan = self.plan(&request, extensions);
        let began = Instant::now();
        let call = Call { discovery: &self.discovery, service: &service, choice: &self.choice, plan: &plan, began };
        let deadline = request.timeout().map(|_| call.deadline());
        let (own, foreign) = (Mutex::new(std::mem::take(extensions)), Mutex::default());
        let rest = Rest { next, extensions: own, deadline, foreign };
        let made = call.make(request, &rest).await;
        *extensions = std::mem::take(&mut *lock(&rest.extensions));
        match made {
            Ok(Answered { mut answer, instance, .. }) => {
                answer.extensions_mut().insert(instance);
                Ok(answer)
            }
            Err(error) => Err(lock(&rest.foreign).take().unwrap_or_else(|| ours(error))),
        }
    }
}

// === impl Rest ===

impl Sender for Rest<'_> {
    type Answer = Response;

    async fn send(&self, mut request: Request) -> Result<Response, Failure> {
        if let Some(deadline) = self.deadline {
            *request.timeout_mut() = Some(deadline.saturating_duration_since(Instant::now()));
        }
        let mut extensions = lock(&self.extensions).clone();
        let answered = self.next.clone().run(request, &mut extensions).await;
        *lock(&self.extensions) = extensions;
        match answered {
            Ok(answer) => Ok(answer),
            Err(reqwest_middleware::Error::Reqwest(error)) => Err(Failure::from(&error)),
            Err(error) => {
                let failure = Failure::foreign(&error);
                *lock(&self.foreign) = Some(error);
                Err(failure)
            }
        }
    }

    fn status(answer: &Response) -> StatusCode {
        answer.status()
    }

    fn headers(answer: &Response) -> &HeaderMap {
        answer.headers()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
