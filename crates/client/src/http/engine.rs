//! One call: which instance is tried, for how long, and whether another one is tried after it.
//!
//! Whoever sends is a [`Sender`]: the calls of [`super::Request`] and those of a client with middleware are made alike.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use roundsman_protocol::{Host, Instance, InstanceId, Trouble};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    DEFAULT_TRY_TIMEOUT, Error, Try,
    call::{LONGEST, Plan},
    callee::Callee,
    failure::{Failure, Kind},
};
use crate::{
    backoff::Backoff,
    balance::{Balancer, Pick},
};

/// First and longest pause before the same instance is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// Answers that another instance may better.
const TROUBLED: [StatusCode; 4] = [
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// The tries of a call.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    pub(crate) callee: &'a Callee,
    pub(crate) balancer: &'a Balancer,
    pub(crate) plan: &'a Plan,
    pub(crate) deadline: Instant,
}

/// Sends a request to the instance that its URL names.
pub(crate) trait Sender: Send {
    /// What comes back.
    type Answer: Send;

    /// Sends it, once.
    fn send(&mut self, request: reqwest::Request) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The status of an answer.
    fn status(answer: &Self::Answer) -> StatusCode;
}

/// An answer, and how it came about.
#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) instance: Arc<Instance>,
    pub(crate) tries: u32,
}

/// Where the next try goes.
struct Target {
    instance: Arc<Instance>,
    /// Missing for one that was named and is no longer in the list.
    pick: Option<Pick>,
}

/// The tries so far.
struct Past {
    tries: Vec<Try>,
    /// Those to be avoided, then those that were asked.
    passed_over: Vec<InstanceId>,
    backoff: Backoff,
}

// === impl Course ===

impl Course<'_> {
    /// Tries until there is an answer worth having, or nothing left to try.
    pub(crate) async fn run<S: Sender>(
        &self,
        request: reqwest::Request,
        sender: &mut S,
    ) -> Result<Answered<S::Answer>, Error> {
        self.callee.deposit();
        let mut past = Past::new(self.plan);
        let mut held = None;
        let mut next = Some(request);
        while let Some(request) = next.take() {
            let Some(target) = self.target(&mut past).await else { break };
            let instance = Arc::clone(&target.instance);
            let nth = u32::try_from(past.tries.len()).unwrap_or(u32::MAX).saturating_add(1);
            // A body that is a stream has no copy: that is the only try then.
            next = if nth < self.plan.limits.tries { request.try_clone() } else { None };
            let outcome = self.attempt(sender, request, target, next.is_some()).await;
            let repeat = next.is_some() && self.may_repeat::<S>(&outcome);
            held = match outcome {
                Ok(answer) if !repeat => return Ok(Answered { answer, instance, tries: nth }),
                Ok(answer) => {
                    past.note(&instance, &Failure::status(S::status(&answer)));
                    Some(Answered { answer, instance, tries: nth })
                }
                Err(failure) => {
                    past.note(&instance, &failure);
                    if !repeat {
                        return Err(self.error(past, instance, failure));
                    }
                    None
                }
            };
        }
        // Nobody is left to ask: what there is must do.
        held.ok_or_else(|| self.nobody(past))
    }

    async fn attempt<S: Sender>(
        &self,
        sender: &mut S,
        mut request: reqwest::Request,
        target: Target,
        more: bool,
    ) -> Result<S::Answer, Failure> {
        address(request.url_mut(), &target.instance)?;
        let (began, until) = (Instant::now(), self.until(more));
        let outcome = timeout_at(until, sender.send(request)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::late(until.saturating_duration_since(began))));
        if let Some(pick) = target.pick {
            match &outcome {
                Ok(answer) if TROUBLED.contains(&S::status(answer)) => {
                    pick.failed_by(Trouble::Status(S::status(answer).as_u16()));
                }
                Ok(_) | Err(Failure { kind: Kind::TooLarge, .. }) => pick.succeeded(),
                Err(Failure { kind: Kind::Request, .. }) => drop(pick),
                Err(failure) => pick.failed_by(failure.trouble.clone()),
            }
        }
        outcome
    }

    /// How long a try may take: where none can follow, the rest of the time.
    fn until(&self, more: bool) -> Instant {
        let more = more && self.plan.idempotent;
        let limit = self.plan.limits.try_timeout.or(more.then_some(DEFAULT_TRY_TIMEOUT));
        limit.map_or(self.deadline, |limit| self.deadline.min(Instant::now() + limit.min(LONGEST)))
    }

    fn may_repeat<S: Sender>(&self, outcome: &Result<S::Answer, Failure>) -> bool {
        let (worth, free) = match outcome {
            Ok(answer) => (self.plan.idempotent && TROUBLED.contains(&S::status(answer)), false),
            Err(failure) => {
                let safe = self.plan.idempotent || !failure.maybe_sent;
                (safe && failure.kind == Kind::Instance, failure.is_refused())
            }
        };
        worth && Instant::now() < self.deadline && (free || self.callee.withdraw())
    }

    /// Where the next try goes, after a pause if it goes where one went before.
    async fn target(&self, past: &mut Past) -> Option<Target> {
        let target = self.choose(past)?;
        if !past.asked(self.plan).contains(&target.instance.id) {
            return Some(target);
        }
        drop(target);
        let pause = past.backoff.next();
        if Instant::now() + pause >= self.deadline {
            return None;
        }
        sleep(pause).await;
        self.choose(past)
    }

    fn choose(&self, past: &Past) -> Option<Target> {
        let snapshot = self.callee.feed().current();
        if let Some(instance) = &self.plan.to {
            let pick = self.balancer.pick_this(&snapshot, &instance.id);
            return Some(Target { instance: Arc::clone(instance), pick });
        }
        let wanted = |pick: &Pick| !self.plan.avoiding.contains(&pick.id);
        let key = self.plan.key.as_deref().filter(|_| past.tries.is_empty());
        let pick = key
            .and_then(|key| self.balancer.pick_for(&snapshot, key).filter(wanted))
            .or_else(|| self.balancer.pick_except(&snapshot, &past.passed_over).filter(wanted))
            .or_else(|| self.balancer.pick_except(&snapshot, &self.plan.avoiding).filter(wanted))?;
        Some(Target { instance: Arc::clone(pick.instance()), pick: Some(pick) })
    }

    fn error(&self, past: Past, instance: Arc<Instance>, failure: Failure) -> Error {
        match failure.kind {
            Kind::TooLarge => Error::TooLarge { instance, limit: self.plan.limits.body },
            Kind::Request => Error::Invalid(failure.detail),
            Kind::Instance => {
                let (service, tries) = (self.callee.service.clone(), past.tries);
                if Instant::now() >= self.deadline {
                    return Error::Deadline { service, after: self.plan.limits.timeout, tries };
                }
                Error::Failed { service, tries }
            }
        }
    }

    fn nobody(&self, past: Past) -> Error {
        let service = self.callee.service.clone();
        if past.tries.is_empty() {
            return Error::NobodyThere { service, avoided: self.plan.avoiding.len() };
        }
        Error::Failed { service, tries: past.tries }
    }
}

/// Points a URL at an instance.
fn address(url: &mut reqwest::Url, instance: &Instance) -> Result<(), Failure> {
    let host = match instance.address.host() {
        Host::Ip(ip) => url.set_ip_host(*ip),
        Host::Name(name) => url.set_host(Some(name)).map_err(drop),
    };
    let set = host.and_then(|()| url.set_port(Some(instance.address.port())));
    set.map_err(|()| Failure::unusable(&instance.address))
}

// === impl Past ===

impl Past {
    fn new(plan: &Plan) -> Self {
        let backoff = Backoff::new(PAUSES.0, PAUSES.1);
        Self { tries: Vec::new(), passed_over: plan.avoiding.clone(), backoff }
    }

    fn note(&mut self, instance: &Arc<Instance>, failure: &Failure) {
        tracing::debug!(instance = %instance.id, address = %instance.address, detail = failure.detail, "a try failed");
        self.passed_over.push(instance.id.clone());
        self.tries.push(Try {
            instance: Arc::clone(instance),
            trouble: failure.trouble.clone(),
            detail: failure.detail.clone(),
            maybe_sent: failure.maybe_sent,
        });
    }

    /// Those that were asked in this call.
    fn asked(&self, plan: &Plan) -> &[InstanceId] {
        self.passed_over.get(plan.avoiding.len()..).unwrap_or_default()
    }
}
