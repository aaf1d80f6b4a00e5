//! gRPC by the name of a service: a channel for the clients that tonic generates.
//!
//! [`Discovery::grpc`](crate::Discovery::grpc) is where it begins. Whatever takes a `tonic::transport::Channel` takes a
//! [`Channel`] of this module as well:
//!
//! ```no_run
//! # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
//! # use tonic::{Request, client::Grpc};
//! // let mut products = ProductsClient::new(discovery.grpc("product"));
//! let mut products = Grpc::new(discovery.grpc("product").prefer_zone("eu-1a"));
//! products.ready().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a call does
//!
//! It does what [`roundsman::http`](crate::http) does: instances are followed, chosen, passed over and waited for alike, and
//! all calls to a service share what is known of its instances and the budget for repetitions. These are the differences:
//!
//! - One HTTP/2 connection to each instance that is called carries all calls to it. Plain: there is no TLS.
//! - No call is repeated once it may have been sent, unless it is said to be [idempotent](Channel::idempotent). It certainly was
//!   not when the connection failed, or when the instance, which leaves, did not take it any more; such a call goes to
//!   another instance, a streamed request as long as nobody has begun to read it. Of a request that is there at
//!   once up to 1 MiB is kept to be sent again.
//! - No call is hedged: a second one that carries out what the first did would be the rule and not the exception.
//! - `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` and `DEADLINE_EXCEEDED` count as failures of the instance, whether they
//!   come at once or after a stream, and so does a stream that breaks off. All other codes are answers.
//! - The time limit ([`Channel::timeout`]) is for the head of the answer. Only what a request says of itself (`grpc-timeout`,
//!   [`tonic::Request::set_timeout`]) covers the whole stream. A streamed request, to which the head may come last, has
//!   no limit unless it is told one.
//!
//! A call without an answer is a [`tonic::Status`], `UNAVAILABLE` or `DEADLINE_EXCEEDED` for the most part, whose source is the
//! [`http::Error`](crate::http::Error) that knows each try. Who answered is among the response's extensions, as an
//! `Arc<Instance>`.

mod answer;
mod gather;
mod wire;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use roundsman_protocol::ServiceName;
use tokio::time::Instant;
use tonic::{Status, body::Body};

pub use crate::http::{Idempotent, Key};
use crate::{
    discovery::Discovery,
    http::{Answered, BoxError, Call, DEFAULT_TIMEOUT, Error, LONGEST, Plan, Settings, settings},
    trace,
};
use answer::{Answer, status_of};
use wire::Wire;

/// The header in which a caller says how long it waits.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// A service that is called over gRPC, balanced call by call; made by [`Discovery::grpc`]. Cheap to make and to clone; all
/// clones share connections.
///
/// It is a [`tower::Service`], which is what generated clients ask for. A single request says more of itself by the extensions
/// [`Idempotent`] and [`Key`].
///
/// ```no_run
/// # use roundsman::{Query, grpc::Idempotent};
/// # fn example(discovery: roundsman::Discovery) {
/// use std::time::Duration;
///
/// let channel = discovery.grpc("product").select(Query::default().version("2")).timeout(Duration::from_secs(2));
/// // let mut products = ProductsClient::new(channel);
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Idempotent(true));
/// // let product = products.find(request).await?;
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a channel is of use in a client"]
pub struct Channel {
    discovery: Discovery,
    name: Result<ServiceName, crate::Error>,
    settings: Settings,
    /// Where none is set it depends on the request.
    timeout: Option<Duration>,
    idempotent: bool,
}

/// A call under way: the [`tower::Service::Future`] of a [`Channel`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>);

// === impl Channel ===

impl Channel {
    pub(crate) fn new(discovery: &Discovery, name: Result<ServiceName, crate::Error>) -> Self {
        let mut settings = Settings::default();
        // Nobody is asked twice.
        settings.limits.hedge_after = LONGEST;
        Self { discovery: discovery.clone(), name, settings, timeout: None, idempotent: false }
    }

    settings!();

    /// How long a call may take until the head of its answer is there, all tries included. By default
    /// [`DEFAULT_TIMEOUT`], and none for a request that is streamed. The
    /// request's own time ([`tonic::Request::set_timeout`]) takes its place.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether carrying out any call twice, also on two instances, is the same as once. By default it is not, and a call is
    /// repeated only when it has certainly not reached its instance. A single request says it by [`Idempotent`].
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    fn name(&self) -> Option<&ServiceName> {
        self.name.as_ref().ok()
    }

    async fn send<B>(self, request: Request<B>) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let began = Instant::now();
        let service = self.name?;
        if let Some(invalid) = self.settings.invalid {
            return Err(invalid);
        }
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, gather::gather(body).await);
        trace::forward(None, request.headers_mut());
        let mut plan = Plan::new(self.settings.limits, request.method());
        plan.idempotent = self.idempotent;
        plan.marked(request.extensions());
        let said = said_timeout(request.headers());
        let usual = if request.body().is_copy() { DEFAULT_TIMEOUT } else { LONGEST };
        plan.limits.timeout = said.or(self.timeout).unwrap_or(usual);
        let (discovery, choice) = (&self.discovery, &self.settings.choice);
        let call = Call { discovery, service: &service, choice, plan: &plan, began };
        let wire = Wire(discovery.inner.calls.grpc(&discovery.inner)?);
        let Answered { answer, instance, verdict, .. } = call.make(request, &wire).await?;
        let deadline = said.map(|_| call.deadline());
        let (head, body) = answer.into_parts();
        let body = Body::new(Answer::new(body, verdict, Arc::clone(&instance), deadline));
        let mut response = Response::from_parts(head, body);
        response.extensions_mut().insert(instance);
        Ok(response)
    }
}

impl<B> tower::Service<Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: whom a call waits for depends on the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let channel = self.clone();
        ResponseFuture(Box::pin(async move { channel.send(request).await.map_err(status_of) }))
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// How long a request says it may take: at most eight digits, and a unit. What is none of that says nothing.
fn said_timeout(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = said.split_at_checked(said.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_request_says_is_read_as_grpc_writes_it() {
        let said =
            |text: &str| said_timeout(&[(GRPC_TIMEOUT.parse().unwrap(), text.parse().unwrap())].into_iter().collect());
        assert_eq!(said("250m"), Some(Duration::from_millis(250)));
        assert_eq!(said("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(said("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!((said("7u"), said("7n")), (Some(Duration::from_micros(7)), Some(Duration::from_nanos(7))));
        for wrong in ["", "m", "1", "1x", "123456789m", "-1m", "+1m", "1.5S", "1 m"] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
        assert_eq!(said_timeout(&HeaderMap::new()), None);
    }
}
