//! Calls by the name of a service for a `reqwest` client of one's own, as a layer of [`reqwest_middleware`].

use async_trait::async_trait;
use http::{Extensions, HeaderMap, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::Next;
use roundsman_protocol::ServiceName;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

pub use crate::http::{Idempotent, Key};
use crate::{
    discovery::Discovery,
    http::{Answered, Call, Error, Failure, Plan, SUFFIX, Sender, Settings, path_settings, settings},
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
    settings: Settings,
}

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
        Self { discovery: discovery.clone(), settings: Settings::default() }
    }

    settings!();
    path_settings!();

    /// How long a call may take until the head of its answer is there, all tries included. By default
    /// [`http::DEFAULT_TIMEOUT`](crate::http::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.timeout = timeout;
        self
    }

    /// It is about as many services as there are URLs.
    #[allow(clippy::unused_self, reason = "others have one")]
    fn name(&self) -> Option<&ServiceName> {
        None
    }

    /// What service a request is for; none, if its host is not one of ours.
    fn service(&self, request: &Request) -> Result<Option<ServiceName>, Error> {
        let url = request.url();
        let Some(name) = url.host_str().and_then(|host| host.strip_suffix(SUFFIX)) else { return Ok(None) };
        if url.scheme() != "http" || url.port().is_some() {
            let rule = format!("{url} must begin with http:// and have no port: that is looked up with the address");
            return Err(Error::Invalid(rule));
        }
        match &self.settings.invalid {
            Some(invalid) => Err(invalid.clone()),
            None => ServiceName::try_new(name).map(Some).map_err(|invalid| crate::Error::from(invalid).into()),
        }
    }

    fn plan(&self, request: &Request, extensions: &Extensions) -> Plan {
        let mut plan = Plan::new(self.settings.limits.clone(), request.method());
        plan.limits.on_route(request.url().path());
        if let Some(timeout) = request.timeout() {
            plan.limits.timeout = *timeout;
        }
        plan.marked(extensions);
        plan
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
        let call =
            Call { discovery: &self.discovery, service: &service, choice: &self.settings.choice, plan: &plan, began };
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
    type Request = Request;
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
