//! One call, from the name of a service to an answer; whoever sends it.

use std::sync::Arc;

use http::Method;
use roundsman_protocol::{Instance, InstanceId, ServiceName};
use tokio::time::Instant;

use super::{
    Error,
    attempt::is_troubled,
    choice::Choice,
    engine::{Answered, Course},
    outgoing::Sender,
    settings::Limits,
};
#[cfg(any(feature = "grpc", feature = "middleware"))]
use super::{Idempotent, Key};
pub(crate) use crate::call::LONGEST;
use crate::{discovery::Discovery, measure::Measured};

/// How a call is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    /// Whether it may be carried out twice.
    pub(crate) idempotent: bool,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) to: Option<Arc<Instance>>,
    pub(crate) avoiding: Vec<InstanceId>,
}

/// A call to be made.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) discovery: &'a Discovery,
    pub(crate) service: &'a ServiceName,
    pub(crate) choice: &'a Choice,
    pub(crate) plan: &'a Plan,
    pub(crate) began: Instant,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(limits: Limits, method: &Method) -> Self {
        Self { limits, idempotent: method.is_idempotent(), key: None, to: None, avoiding: Vec::new() }
    }

    /// Takes what a request says of itself.
    #[cfg(any(feature = "grpc", feature = "middleware"))]
    pub(crate) fn marked(&mut self, extensions: &http::Extensions) {
        if let Some(Idempotent(idempotent)) = extensions.get() {
            self.idempotent = *idempotent;
        }
        if let Some(Key(key)) = extensions.get() {
            self.key = Some(key.clone());
        }
    }
}

// === impl Call ===

impl Call<'_> {
    /// When it must be over.
    pub(crate) fn deadline(&self) -> Instant {
        self.began + self.plan.limits.timeout.min(LONGEST)
    }

    /// Makes it. Ends at once when the client is closed.
    pub(crate) async fn make<S: Sender>(&self, request: S::Request, sender: &S) -> Result<Answered<S::Answer>, Error> {
        let inner = &self.discovery.inner;
        // On the heap: callers keep this future within theirs, and it is large.
        let mut measured = Measured::new(self.began);
        let making = Box::pin(async {
            let callee = inner.calls.callee(inner, self.service, self.choice)?;
            let balancer = callee.balancer(self.choice, self.plan.key.as_deref(), &inner.peers);
            if self.plan.to.is_none() {
                callee.ready(self.discovery, self.deadline()).await?;
            }
            measured.exists(self.service, callee.feed().current().stale());
            let course = Course { callee: &callee, balancer: &balancer, plan: self.plan, deadline: self.deadline() };
            course.run(request, sender).await
        });
        let made = inner.stop.run_until_cancelled(making).await.unwrap_or(Err(crate::Error::Closed.into()));
        match &made {
            Ok(answered) => measured.answered(is_troubled(S::status(&answered.answer))),
            Err(error) => measured.failed(error),
        }
        made
    }
}
