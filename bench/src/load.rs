//! Closed-loop load: so many callers, each with one call under way at any time.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::{
    error::{Context, Result},
    stats::Latencies,
};

/// Somebody who calls again and again.
pub(crate) trait Caller: Send + 'static {
    /// Makes one call and waits for its answer. An answer that is not the expected one is an error.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
}

/// Lets all callers call for this long, and waits for their last answers.
pub(crate) async fn run<C: Caller>(callers: &mut Vec<C>, time: Duration) -> Result<Load> {
    let start = Instant::now();
    let end = start + time;
    let mut tasks = JoinSet::new();
    for mut caller in callers.drain(..) {
        tasks.spawn(async move {
            let mut latencies = Latencies::new()?;
            let mut before = Instant::now();
            while before < end {
                caller.call().await?;
                let after = Instant::now();
                latencies.record(after - before);
                before = after;
            }
            Ok((caller, latencies))
        });
    }
    let mut all = Latencies::new()?;
    while let Some(ended) = tasks.join_next().await {
        let (caller, latencies) = ended.context("waiting for a caller")??;
        all.add(&latencies)?;
        callers.push(caller);
    }
    Ok(Load { elapsed: start.elapsed(), latencies: all })
}
