//! One try: a request on its way to one instance, and what its outcome tells of that instance.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use roundsman_protocol::{Clock, Instance, Timestamp, Trouble};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    failure::{Failure, Kind},
    outgoing::{Outgoing, Sender},
};
use crate::{
    balance::{Pick, Verdict},
    measure,
};

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

/// What a try failed of, if it did.
fn trouble<S: Sender>(outcome: &Result<S::Answer, Failure>) -> Option<Trouble> {
    match outcome {
        Ok(answer) => {
            Some(S::status(answer)).filter(|status| is_troubled(*status)).map(|status| Trouble::Status(status.as_u16()))
        }
        Err(failure) => failure.counts().then(|| failure.trouble.clone()),
    }
}

/// For how long an instance that is overloaded or away asks to be left alone.
pub(super) fn retry_after<S: Sender>(answer: &S::Answer) -> Option<Duration> {
    let overloaded = S::status(answer) == StatusCode::SERVICE_UNAVAILABLE;
    let now = || Clock::system().now();
    overloaded.then(|| time_asked_for(S::headers(answer), now)).flatten()
}

/// So many seconds, or until a date. That is read by the clock of whoever says it, if it tells its time: `now` may be another.
fn time_asked_for(headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = date(said)?;
    let there = headers.get(DATE).and_then(|said| said.to_str().ok()).and_then(date);
    Some(until.saturating_sub(there.unwrap_or_else(|| Duration::from_millis(now().as_millis()))))
}

/// The time since 1970, of a date in any form that HTTP knows.
fn date(text: &str) -> Option<Duration> {
    httpdate::parse_http_date(text.trim()).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

// === impl Target ===

impl Target {
    pub(super) fn picked(pick: Pick) -> Self {
        Self { instance: Arc::clone(pick.instance()), pick: Some(pick) }
    }

    /// Nothing goes there after all.
    pub(super) fn put_back(self) {
        if let Some(pick) = self.pick {
            pick.unused();
        }
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Sends it, and tells the instance's circuit how that went.
    pub(super) async fn run<S: Sender>(mut self, sender: &S, request: S::Request) -> Tried<S::Answer> {
        let began = Instant::now();
        let outcome = self.exchange(sender, request, began).await;
        if let Some(trouble) = trouble::<S>(&outcome) {
            measure::failed(&self.target.instance.name, &trouble);
        }
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
                Err(Failure { kind: Kind::Request | Kind::Upload | Kind::Ours, .. }) => drop(pick),
                Err(failure) => pick.failed_by(failure.trouble.clone()),
            }
        }
        Tried { instance: Arc::clone(&self.target.instance), nth: self.nth, outcome, verdict }
    }

    async fn exchange<S: Sender>(
        &mut self,
        sender: &S,
        mut request: S::Request,
        began: Instant,
    ) -> Result<S::Answer, Failure> {
        request.point_at(&self.target.instance.address)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const TEN_PAST: &str = "Sun, 06 Nov 1994 12:00:10 GMT";

    fn asked_for(after: &str, there: Option<&str>, here: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, after.parse().unwrap());
        if let Some(there) = there {
            headers.insert(DATE, there.parse().unwrap());
        }
        let here = Timestamp::from_millis(date(here).unwrap().as_millis().try_into().unwrap());
        time_asked_for(&headers, || here)
    }

    #[test]
    fn time_is_asked_for_in_seconds_or_until_a_date() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((asked_for("3", None, NOON), asked_for(" 0 ", None, NOON)), (seconds(3), seconds(0)));
        assert_eq!(asked_for(TEN_PAST, None, NOON), seconds(10));
        assert_eq!(asked_for("Sunday, 06-Nov-94 12:00:10 GMT", None, NOON), seconds(10), "an old form");
        assert_eq!(asked_for(NOON, None, TEN_PAST), seconds(0), "that is over");
        // Clocks that disagree by centuries make no difference where both times are of one of them.
        assert_eq!(asked_for(TEN_PAST, Some(NOON), "Mon, 01 Jan 2170 00:00:00 GMT"), seconds(10));
        assert_eq!(asked_for(TEN_PAST, Some("no date"), NOON), seconds(10));
        for nonsense in ["", "-3", "3.5", "soon", "Sun, 99 Nov 1994 12:00:00 GMT", "99999999999999999999"] {
            assert_eq!(asked_for(nonsense, None, NOON), None, "{nonsense}");
        }
        assert_eq!(time_asked_for(&HeaderMap::new(), || Timestamp::MAX), None);
    }
}
