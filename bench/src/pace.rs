//! Open-loop load: so many calls a second by the name of a service, whatever becomes of them.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use roundsman::{Discovery, http};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    error::{Context, Failure, Result},
    stats::Latencies,
};

/// More calls than this under way mean that the load is not carried at all.
const MOST_UNDER_WAY: usize = 10_000;

/// Callers that do not wait for each other.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) service: http::Service,
    /// What a call is.
    pub(crate) call: Call,
    /// Calls a second.
    pub(crate) rate: u32,
    /// Each call asks for the number of microseconds that have passed since then.
    pub(crate) since: Instant,
}

/// Asks a service for a path.
pub(crate) type Call = fn(http::Service, String) -> BoxFuture<'static, Answer>;

type Answer = Result<http::Response, http::Error>;

/// What came of the calls.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) latencies: Latencies,
    pub(crate) failed: u64,
    /// Answered, but not at the first try.
    pub(crate) repeated: u64,
    /// What the first failure said.
    pub(crate) failure: Option<String>,
}

// === impl Pace ===

impl Pace {
    /// Of the service in the default namespace of that server; `tries` for each call.
    pub(crate) fn new(discovery: &Discovery, service: &str, tries: u32, rate: u32) -> Self {
        Self::of(discovery.http(service).tries(tries), rate)
    }

    /// GETs of a service, as it is set up.
    pub(crate) fn of(service: http::Service, rate: u32) -> Self {
        let call: Call = |service, path| service.get(path).send().boxed();
        Self { service, call, rate, since: Instant::now() }
    }

    /// Calls until `until` is over, and waits for the last answers.
    pub(crate) async fn run(self, until: impl Future<Output = Result<()>>) -> Result<Outcomes> {
        let mut outcomes = Outcomes { latencies: Latencies::new()?, failed: 0, repeated: 0, failure: None };
        let mut calls = JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / self.rate.max(1));
        // Calls that are late are made up for at once: the rate is kept on the average.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                biased;
                ended = until.as_mut() => {
                    ended?;
                    break;
                }
                Some(call) = calls.join_next() => outcomes.count(call.context("waiting for a call")?),
                _ = ticks.tick() => {
                    let start = Instant::now();
                    let call = (self.call)(self.service.clone(), format!("/{}", self.since.elapsed().as_micros()));
                    calls.spawn(async move { (call.await, start.elapsed()) });
                }
            }
            if calls.len() > MOST_UNDER_WAY {
                return Err(Failure::new("calling", format!("more than {MOST_UNDER_WAY} calls are under way")));
            }
        }
        while let Some(call) = calls.join_next().await {
            outcomes.count(call.context("waiting for a call")?);
        }
        Ok(outcomes)
    }
}

// === impl Outcomes ===

impl Outcomes {
    pub(crate) fn calls(&self) -> u64 {
        self.latencies.count()
    }

    fn count(&mut self, (answer, took): (Answer, Duration)) {
        self.latencies.record(took);
        match answer.and_then(http::Response::error_for_status) {
            Ok(answer) => self.repeated += u64::from(answer.tries() > 1),
            Err(error) => {
                self.failed += 1;
                self.failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}
