//! One call: which instances are asked, one after the other or, when an answer keeps them waiting, side by side.
//!
//! Whoever sends is a [`Sender`]: the calls of [`super::Request`] and those of a client with middleware are made alike.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use roundsman_protocol::Instance;
use tokio::time::{Instant, sleep_until};

use super::{
    Error, Try,
    attempt::{Attempt, Target, Tried, is_troubled, retry_after},
    budget::Payment,
    call::{LONGEST, Plan},
    callee::Callee,
    failure::{Failure, Kind},
    outgoing::{Outgoing, Sender},
    past::Past,
};
use crate::{
    balance::{Balancer, Pick, Verdict},
    measure,
};

/// When there is nobody else to ask, or no budget for it, that is looked into again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    pub(crate) callee: &'a Callee,
    pub(crate) balancer: &'a Balancer,
    pub(crate) plan: &'a Plan,
    pub(crate) deadline: Instant,
}

/// An answer, and how it came about.
#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) instance: Arc<Instance>,
    pub(crate) tries: u32,
    /// Missing for one that counts as a failure already.
    pub(crate) verdict: Option<Verdict>,
}

/// The tries under way, and what the next one would send.
struct Flight<'c, R, A> {
    under_way: FuturesUnordered<BoxFuture<'c, Tried<A>>>,
    /// Missing when no further try is allowed.
    spare: Option<R>,
    /// When another instance is asked beside those that are.
    hedge: Option<Instant>,
    /// An answer that another try was to better.
    held: Option<Answered<A>>,
    past: Past,
}

// === impl Course ===

impl Course<'_> {
    /// Tries until there is an answer worth having, or nothing left to try.
    pub(crate) async fn run<S: Sender>(&self, request: S::Request, sender: &S) -> Result<Answered<S::Answer>, Error> {
        self.callee.deposit();
        let won = AtomicU32::new(0);
        let mut flight = Flight {
            under_way: FuturesUnordered::new(),
            spare: Some(request),
            hedge: None,
            held: None,
            past: Past::new(self.plan),
        };
        let Some(target) = self.target(&mut flight.past).await else { return Err(self.nobody()) };
        self.begin(&mut flight, target, sender, &won);
        loop {
            let tried = tokio::select! {
                biased;
                Some(tried) = flight.under_way.next() => tried,
                () = until(flight.hedge) => {
                    self.hedge(&mut flight, sender, &won);
                    continue;
                }
            };
            if self.is_final::<S>(&tried.outcome) {
                won.store(tried.nth, Ordering::Relaxed);
                return self.settled(flight, tried);
            }
            flight.note::<S>(&tried);
            if let Some(target) = self.follow_up::<S>(&mut flight, &tried).await {
                self.begin(&mut flight, target, sender, &won);
            } else if flight.under_way.is_empty() {
                return self.settled(flight, tried);
            }
            flight.keep(tried);
        }
    }

    /// Sends what there is to send to this instance.
    fn begin<'c, S: Sender>(
        &'c self,
        flight: &mut Flight<'c, S::Request, S::Answer>,
        target: Target,
        sender: &'c S,
        won: &'c AtomicU32,
    ) {
        let Some(request) = flight.spare.take() else { return };
        let nth = flight.past.begin(&target.instance.id);
        if nth < self.plan.limits.tries {
            flight.spare = request.again();
        }
        measure::tried(&self.callee.service);
        let now = Instant::now();
        let expected = self.expected(&target, now);
        let copy = flight.spare.as_ref().is_some_and(Outgoing::is_copy);
        let hedged = copy && self.plan.idempotent && self.plan.to.is_none();
        flight.hedge = hedged.then_some(expected);
        let attempt = Attempt { target, nth, expected, until: self.until(now), won };
        flight.under_way.push(Box::pin(attempt.run(sender, request)));
    }

    /// Asks another instance while the others go on, if there is one and the budget allows it.
    fn hedge<'c, S: Sender>(
        &'c self,
        flight: &mut Flight<'c, S::Request, S::Answer>,
        sender: &'c S,
        won: &'c AtomicU32,
    ) {
        let Some(target) = self.other(&flight.past).and_then(|target| self.paid(target)) else {
            flight.hedge = Some(Instant::now() + LOOK_AGAIN);
            return;
        };
        tracing::debug!(instance = %target.instance.id, "no answer yet; asking another one as well");
        measure::hedged(&self.callee.service);
        self.begin(flight, target, sender, won);
    }

    /// Where another try goes after one that came to nothing. While others are under way, nobody is asked twice.
    async fn follow_up<S: Sender>(
        &self,
        flight: &mut Flight<'_, S::Request, S::Answer>,
        tried: &Tried<S::Answer>,
    ) -> Option<Target> {
        let whole = flight.spare.as_ref().is_some_and(Outgoing::is_whole);
        if !whole || !self.may_repeat::<S>(tried) || Instant::now() >= self.deadline {
            return None;
        }
        let free = tried.outcome.as_ref().is_err_and(Failure::is_refused);
        if !flight.under_way.is_empty() {
            let target = self.other(&flight.past)?;
            return if free { Some(target) } else { self.paid(target) };
        }
        let payment = if free { None } else { Some(self.callee.pay()?) };
        let target = self.target(&mut flight.past).await?;
        payment.into_iter().for_each(Payment::spend);
        Some(target)
    }

    /// The target, if the budget allows another request. Otherwise it is left for others to choose.
    fn paid(&self, target: Target) -> Option<Target> {
        let Some(payment) = self.callee.pay() else {
            target.put_back();
            return None;
        };
        payment.spend();
        Some(target)
    }

    /// When an answer may be expected: by what is usual for the instance, and never too soon.
    fn expected(&self, target: &Target, now: Instant) -> Instant {
        let usual = target.pick.as_ref().and_then(|pick| pick.p99(1)).unwrap_or_default();
        now + usual.max(self.plan.limits.hedge_after).min(LONGEST)
    }

    /// When a try ends: where its caller set no limit, with the call. To end it sooner would only lose its answer.
    fn until(&self, now: Instant) -> Instant {
        self.plan.limits.try_timeout.map_or(self.deadline, |limit| self.deadline.min(now + limit.min(LONGEST)))
    }

    /// Whether no other try could make a difference.
    fn is_final<S: Sender>(&self, outcome: &Result<S::Answer, Failure>) -> bool {
        match outcome {
            Ok(answer) => !(self.plan.idempotent && is_troubled(S::status(answer))),
            Err(failure) => !matches!(failure.kind, Kind::Instance | Kind::Ours),
        }
    }

    /// Whether sending it once more does no harm.
    fn may_repeat<S: Sender>(&self, tried: &Tried<S::Answer>) -> bool {
        self.plan.idempotent || tried.outcome.as_ref().is_err_and(|failure| !failure.maybe_sent)
    }

    /// Somebody who was not asked and is not passed over.
    fn other(&self, past: &Past) -> Option<Target> {
        let snapshot = self.callee.feed().current();
        let named = self.plan.to.is_some();
        let pick = (!named).then(|| self.balancer.pick_other(&snapshot, past.passed_over()))?;
        pick.map(Target::picked)
    }

    /// Somebody, if possible one who was not asked.
    pub(super) fn choose(&self, past: &Past) -> Option<Target> {
        let snapshot = self.callee.feed().current();
        if let Some(instance) = &self.plan.to {
            let pick = self.balancer.pick_this(&snapshot, &instance.id);
            return Some(Target { instance: Arc::clone(instance), pick });
        }
        let wanted = |pick: &Pick| !self.plan.avoiding.contains(&pick.id);
        let key = self.plan.key.as_deref().filter(|_| past.begun == 0);
        let pick = key
            .and_then(|key| self.balancer.pick_for_except(&snapshot, key, &self.plan.avoiding))
            .or_else(|| self.balancer.pick_except(&snapshot, past.passed_over()).filter(wanted))
            .or_else(|| self.balancer.pick_except(&snapshot, &self.plan.avoiding).filter(wanted))?;
        Some(Target::picked(pick))
    }

    /// The end of the call. Where there was an answer, it is better than none.
    fn settled<R, A>(&self, flight: Flight<'_, R, A>, tried: Tried<A>) -> Result<Answered<A>, Error> {
        let Tried { instance, nth, outcome, verdict } = tried;
        let (mut past, held) = (flight.past, flight.held);
        let failure = match outcome {
            Ok(answer) => return Ok(Answered { answer, instance, tries: nth, verdict }),
            Err(failure) => failure,
        };
        match failure.kind {
            Kind::TooLarge => Err(Error::TooLarge { instance, limit: self.plan.limits.body }),
            Kind::Request => Err(Error::Invalid(failure.detail)),
            Kind::Upload => {
                past.note(&instance, &failure);
                Err(self.unanswered(past.tries))
            }
            Kind::Instance | Kind::Ours => held.ok_or_else(|| self.unanswered(past.tries)),
        }
    }

    fn unanswered(&self, tries: Vec<Try>) -> Error {
        let service = self.callee.service.clone();
        if Instant::now() >= self.deadline {
            return Error::Deadline { service, after: self.plan.limits.timeout, tries };
        }
        Error::Failed { service, tries }
    }

    fn nobody(&self) -> Error {
        Error::NobodyThere { service: self.callee.service.clone(), avoided: self.plan.avoiding.len() }
    }
}

// === impl Flight ===

impl<R, A> Flight<'_, R, A> {
    /// Notes a try that came to nothing, or to an answer that is to be bettered.
    fn note<S: Sender<Answer = A>>(&mut self, tried: &Tried<A>) {
        match &tried.outcome {
            Ok(answer) => {
                self.past.hold(&tried.instance.id, retry_after::<S>(answer));
                self.past.note(&tried.instance, &Failure::status(S::status(answer)));
            }
            Err(failure) => self.past.note(&tried.instance, failure),
        }
    }

    /// Keeps an answer that is to be bettered.
    fn keep(&mut self, tried: Tried<A>) {
        let Tried { instance, nth, outcome, verdict } = tried;
        if let Ok(answer) = outcome {
            self.held = Some(Answered { answer, instance, tries: nth, verdict });
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
