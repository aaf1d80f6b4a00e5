//! Sends a request, and reads as much of the answer as its caller wants.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{
    Body, Error, Request, Response, Service, Streamed,
    body::AnyBody,
    call::Call,
    client::{Client, Read},
    engine::Answered,
    failure::Failure,
    outgoing::Sender,
    streamed::Timed,
};
use crate::trace;

/// Reads each answer to its end.
struct Whole {
    client: Client,
    limit: usize,
}

/// Reads only the head.
struct Head {
    client: Client,
}

impl Request {
    /// Sends it, and reads the answer to its end. Cancel safe: dropping the future abandons the call, which may or may not have
    /// happened.
    ///
    /// # Errors
    /// When there is no answer; see [`Error`]. A status is an answer.
    pub async fn send(self) -> Result<Response, Error> {
        let limit = self.plan.limits.body;
        let answered = self.go(|client| Whole { client, limit }).await?.0;
        let Answered { answer: (status, headers, body), instance, tries, verdict } = answered;
        Ok(Response { status, headers, body, instance, tries, verdict: verdict.map(Arc::new) })
    }

    /// Sends it, and returns the answer as soon as its head is there: for bodies that are long or without an end.
    ///
    /// A body that breaks off is the caller's to deal with. It is cut off when the whole [time](Request::timeout) is up, so
    /// allow for it.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
    /// use std::time::Duration;
    ///
    /// let request = discovery.http("product").get("/catalogue").timeout(Duration::from_secs(600));
    /// let mut answer = request.stream().await?;
    /// while let Some(chunk) = answer.chunk().await? {
    ///     println!("{} bytes of {}", chunk.len(), answer.instance().id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no answer; see [`Error`]. A status is an answer.
    pub async fn stream(self) -> Result<Streamed, Error> {
        let limit = self.plan.limits.body;
        let (Answered { answer, instance, tries, verdict }, deadline) = self.go(|client| Head { client }).await?;
        let (http::response::Parts { status, headers, .. }, body) = answer.into_parts();
        let body = Timed::new(body, deadline, verdict.map(Arc::new));
        Ok(Streamed { status, headers, body, instance, tries, limit })
    }

    /// Makes the call; until when it may take goes along.
    async fn go<S>(self, sender: impl FnOnce(Client) -> S) -> Result<(Answered<S::Answer>, Instant), Error>
    where
        S: Sender<Request = http::Request<Body>>,
    {
        let began = Instant::now();
        let mut request = self.draft?.finish()?;
        let Service { discovery, name, settings } = self.service;
        let service = name?;
        if let Some(invalid) = settings.invalid {
            return Err(invalid);
        }
        trace::forward(self.trace, request.headers_mut());
        let call = Call { discovery: &discovery, service: &service, choice: &settings.choice, plan: &self.plan, began };
        let sender = sender(discovery.inner.calls.client(&discovery.inner)?);
        let answered = call.make(request, &sender).await?;
        Ok((answered, call.deadline()))
    }
}

// === impl Whole ===

impl Sender for Whole {
    type Request = http::Request<Body>;
    type Answer = Read;

    async fn send(&self, request: Self::Request) -> Result<Self::Answer, Failure> {
        self.client.read(request, self.limit).await
    }

    fn status(answer: &Self::Answer) -> StatusCode {
        answer.0
    }

    fn headers(answer: &Self::Answer) -> &HeaderMap {
        &answer.1
    }
}

// === impl Head ===

impl Sender for Head {
    type Request = http::Request<Body>;
    type Answer = http::Response<AnyBody>;

    async fn send(&self, request: Self::Request) -> Result<Self::Answer, Failure> {
        self.client.begin(request).await
    }

    fn status(answer: &Self::Answer) -> StatusCode {
        answer.status()
    }

    fn headers(answer: &Self::Answer) -> &HeaderMap {
        answer.headers()
    }
}
