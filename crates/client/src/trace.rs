//! Passing a trace on, as the [W3C's Trace Context](https://www.w3.org/TR/trace-context/) has it.
//!
//! A service that is called with a `traceparent` header and calls others for it passes the header on, so that whoever
//! collects traces sees one trace. [`roundsman::http`](crate::http) does that by itself for calls that are made within
//! [`TraceContext::scope`]; with the feature `axum` the middleware `carry` opens it for each request.

use http::{HeaderMap, HeaderName, HeaderValue};

mod parse;

/// The trace that a request belongs to: a valid `traceparent`, and the `tracestate` with it. It is passed on as it came.
///
/// ```
/// use roundsman::TraceContext;
///
/// let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
/// assert_eq!(trace.unwrap().trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// assert_eq!(TraceContext::parse("00-something-else", None), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: HeaderValue,
    /// The trace's id, within `parent`.
    id: Box<str>,
    sampled: bool,
    state: Option<HeaderValue>,
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

tokio::task_local! {
    static CURRENT: TraceContext;
}

// === impl TraceContext ===

impl TraceContext {
    /// Reads the two headers. `None` for a `traceparent` that breaks a rule: a trace that is broken is not
    /// passed on. A `tracestate` that breaks a rule is left out.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let parent = parse::parent(traceparent)?;
        let state = tracestate.and_then(parse::state).and_then(|state| HeaderValue::try_from(state).ok());
        Some(Self {
            parent: HeaderValue::try_from(&parent.text).ok()?,
            id: parent.trace_id.into(),
            sampled: parent.sampled,
            state,
        })
    }

    /// The trace of a request with these headers, if it has one.
    ///
    /// ```
    /// use roundsman::{TraceContext, http::HeaderMap};
    ///
    /// assert_eq!(TraceContext::from_headers(&HeaderMap::new()), None);
    /// ```
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let states: Option<Vec<_>> = headers.get_all(TRACESTATE).iter().map(|state| state.to_str().ok()).collect();
        let state = states.filter(|states| !states.is_empty()).map(|states| states.join(","));
        Self::parse(parent.to_str().ok()?, state.as_deref())
    }

    /// Adds the headers to those of a request that is made for this trace, by whatever client.
    ///
    /// ```
    /// use roundsman::{TraceContext, http::HeaderMap};
    ///
    /// let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
    /// let mut headers = HeaderMap::new();
    /// trace.add_to(&mut headers);
    /// assert_eq!(TraceContext::from_headers(&headers), Some(trace));
    /// ```
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone());
        match &self.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            None => drop(headers.remove(TRACESTATE)),
        }
    }

    /// Runs a future within this trace: calls that it makes through [`roundsman::http`](crate::http) pass the trace on.
    ///
    /// Tasks that it spawns are outside; give them [`TraceContext::current`] and a scope of their own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use roundsman::TraceContext;
    ///
    /// let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
    /// trace.clone().scope(async { assert_eq!(TraceContext::current(), Some(trace)) }).await;
    /// assert_eq!(TraceContext::current(), None);
    /// # }
    /// ```
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// The trace of the innermost [scope](TraceContext::scope) around.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The id of the whole trace: 32 hexadecimal digits. Good to have in logs.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.id
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

/// Gives a request its trace: the one named, or the one around; not if the request carries one already.
pub(crate) fn forward(trace: Option<TraceContext>, headers: &mut HeaderMap) {
    if let Some(trace) = trace {
        trace.add_to(headers);
    } else if !headers.contains_key(TRACEPARENT) {
        let _ = CURRENT.try_with(|trace| trace.add_to(headers));
    }
}

/// For axum: runs each request within its trace, so that calls made for it pass the trace on.
///
/// ```
/// use axum::{Router, middleware::from_fn, routing::get};
///
/// let routes: Router = Router::new().route("/", get("hello")).layer(from_fn(roundsman::trace::carry));
/// ```
#[cfg(feature = "axum")]
pub async fn carry(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    match TraceContext::from_headers(request.headers()) {
        Some(trace) => trace.scope(next.run(request)).await,
        None => next.run(request).await,
    }
}
