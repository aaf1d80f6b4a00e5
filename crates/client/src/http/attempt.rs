//! One try: a request on its way to one instance, and what its outcome tells of that instance.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use roundsman_protocol::{Host, Instance, Trouble};
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::{Failure, Kind};
use crate::balance::{Pick, Verdict};

/// So many times its 99th percentile is far longer than an instance usually takes.
const FAR_LONGER: u32 = 5;
/// No call waits far longer than usual before this.
const LEAST_OVERDUE: Duration = Duration::from_millis(500);
/// What is usual is known after so many answers.
const KNOWN: u32 = 10;

/// Answers that another instance may better.
const TROUBLED: [StatusCode; 4] = [
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Sends a request to the instance that its URL names.
pub(crate) trait Sender: Sync {
    /// What comes back.
    type Answer: Send;

    /// Sends it, once. Another one may be sent while this one is under way; a future that is dropped abandons its request.
    fn send(&self, request: reqwest::Request) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The status of an answer.
    fn status(answer: &Self::Answer) -> StatusCode;

    /// The headers of an answer.
    fn headers(answer: &Self::Answer) -> &HeaderMap;
}

/// Where a try goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) instance: Arc<Instance>,
    /// Missing for one that was named and is no longer in the list.
    pub(super) pick: Option<Pick>,
}

/// A try, and who waits for it.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) target: Target,
    /// Counted from one.
    pub(super) nth: u32,
    /// When an answer may be expected.
    pub(super) expected: Instant,
    /// When it ends.
    pub(super) until: Instant,
    /// The number of the try that was answered; zero before that.
    pub(super) won: &'a AtomicU32,
}

/// What a try came to.
#[derive(Debug)]
pub(super) struct Tried<A> {
    pub(super) instance: Arc<Instance>,
    pub(super) nth: u32,
    pub(super) outcome: Result<A, Failure>,
    /// Of an answer that counts as one.
    pub(super) verdict: Option<Verdict>,
}

/// Whether another instance may do better.
pub(super) fn is_troubled(status: StatusCode) -> bool {
    TROUBLED.contains(&status)
}

/// For how long an instance that is overloaded or away asks to be left alone. A date is not understood.
pub(super) fn retry_after<S: Sender>(answer: &S::Answer) -> Option<Duration> {
    let overloaded = S::status(answer) == StatusCode::SERVICE_UNAVAILABLE;
    let said = S::headers(answer).get(RETRY_AFTER).filter(|_| overloaded)?;
    said.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

// === impl Target ===

impl Target {
    pub(super) fn picked(pick: Pick) -> Self {
        Self { instance: Arc::clone(pick.instance()), pick: Some(pick) }
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Sends it, and tells the instance's circuit how that went.
    pub(super) async fn run<S: Sender>(mut self, sender: &S, request: reqwest::Request) -> Tried<S::Answer> {
        let began = Instant::now();
        let outcome = self.exchange(sender, request, began).await;
        let mut verdict = None;
        if let Some(pick) = self.target.pick.take() {
            match &outcome {
                Ok(answer) if is_troubled(S::status(answer)) => {
                    if let Some(time) = retry_after::<S>(answer) {
                        pick.hold(time);
                    }
                    pick.failed_by(Trouble::Status(S::status(answer).as_u16()));
                }
                Ok(_) => {
                    pick.took(began.elapsed());
                    verdict = Some(pick.answered());
                }
                Err(Failure { kind: Kind::TooLarge, .. }) => pick.succeeded(),
                Err(Failure { kind: Kind::Request, .. }) => drop(pick),
                Err(failure) => pick.failed_by(failure.trouble.clone()),
            }
        }
        Tried { instance: Arc::clone(&self.target.instance), nth: self.nth, outcome, verdict }
    }

    async fn exchange<S: Sender>(
        &mut self,
        sender: &S,
        mut request: reqwest::Request,
        began: Instant,
    ) -> Result<S::Answer, Failure> {
        address(&mut request, &self.target.instance)?;
        let until = self.until;
        let late = || Err(Failure::late(until.saturating_duration_since(began)));
        let mut sending = pin!(timeout_at(until, sender.send(request)));
        if let Some(pick) = &mut self.target.pick
            && let Some(usual) = pick.p99(KNOWN)
        {
            let overdue = usual.saturating_mul(FAR_LONGER).max(LEAST_OVERDUE);
            match timeout(overdue, &mut sending).await {
                Ok(outcome) => return outcome.unwrap_or_else(|_| late()),
                Err(_) => pick.overdue(),
            }
        }
        sending.await.unwrap_or_else(|_| late())
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // A later try was faster, though this one had all the time that its instance usually takes, and more.
        let overtaken = self.won.load(Ordering::Relaxed) > self.nth && Instant::now() >= self.expected;
        if let Some(pick) = self.target.pick.take()
            && overtaken
        {
            pick.failed_by(Trouble::Timeout);
        }
    }
}

/// Points a request's URL at an instance.
fn address(request: &mut reqwest::Request, instance: &Instance) -> Result<(), Failure> {
    let url = request.url_mut();
    let host = match instance.address.host() {
        Host::Ip(ip) => url.set_ip_host(*ip),
        Host::Name(name) => url.set_host(Some(name)).map_err(drop),
    };
    let set = host.and_then(|()| url.set_port(Some(instance.address.port())));
    set.map_err(|()| Failure::unusable(&instance.address))
}
