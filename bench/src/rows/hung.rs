//! An instance that hangs: it accepts connections and never answers.

use std::time::Duration;

use roundsman::{Discovery, Resolver};
use tokio::time::{Instant, sleep, timeout};

use super::duration;
use crate::{
    error::{Context, Failure, Result},
    herd::Herd,
    pace::Pace,
    plan::Plan,
    report::Row,
    rows::kills::SERVICE,
    series::micros,
    server::{Setup, Store},
    stats::median,
};

/// Instances at any time: enough for the server to ask itself whether it is the one that is cut off.
const INSTANCES: usize = 8;
/// Rounds do not come by while this is measured: what counts is what callers report.
const INTERVAL: &str = "60s";
const PATIENCE: Duration = Duration::from_secs(30);
/// A call's timeout, two of the check's with their pause, and a little.
const GOAL: Duration = Duration::from_millis(3_500);

/// What became of one that hung.
struct Hung {
    /// From its last answer to the last call that was sent to it.
    last_call: Duration,
    /// To its disappearance from the caller's list.
    gone: Duration,
    calls: u64,
    failed: u64,
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = Setup::new(Store::Sqlite).flag("--interval", INTERVAL).start().await?;
    let mut herd = Herd::start(server.rpc, INSTANCES).await?;
    let mut all = Vec::new();
    // For all of them: who hangs later was called earlier.
    let since = Instant::now();
    for _ in 0..plan.hangs {
        // Each time by a caller who remembers nothing of the one before.
        let discovery = Discovery::connect(server.rpc.to_string()).await.context("connecting to the server")?;
        all.push(hang(&mut herd, &discovery, plan.call_rate, since).await?);
        discovery.close().await;
        herd.grow().await?;
    }
    let middle = |of: fn(&Hung) -> Duration| super::time(median(all.iter().map(|hung| micros(of(hung)))));
    let longest = all.iter().map(|hung| hung.last_call.max(hung.gone)).max().unwrap_or_default();
    let what = format!(
        "one of {INSTANCES} instances hangs (SIGSTOP), visited every {INTERVAL}, {} calls/s: to the last call sent to it",
        plan.call_rate
    );
    let measured = format!(
        "{}; out of the caller's list after {}; the longest of {}: {}; {} of {} calls failed",
        middle(|hung| hung.last_call),
        middle(|hung| hung.gone),
        all.len(),
        duration(longest),
        all.iter().map(|hung| hung.failed).sum::<u64>(),
        all.iter().map(|hung| hung.calls).sum::<u64>(),
    );
    Ok(vec![Row::figure(what, measured).goal("≤ 3.5 s: one report and the timeouts", Some(longest <= GOAL))])
}

/// Freezes the oldest of the herd under load, and asks it afterwards what it had been sent.
async fn hang(herd: &mut Herd, discovery: &Discovery, rate: u32, since: Instant) -> Result<Hung> {
    let resolver = discovery.resolver(SERVICE).await.context("resolving")?;
    let (id, mut victim) = herd.oldest().ok_or_else(|| Failure::new("freezing", "no instance is left"))?;
    let pace = Pace { since, ..Pace::new(discovery, SERVICE, 2, rate) };
    let (mut frozen, mut gone) = (Duration::ZERO, Duration::ZERO);
    let freezing = async {
        sleep(Duration::from_secs(1)).await;
        victim.process().freeze()?;
        frozen = since.elapsed();
        gone = wait_until_gone(&resolver, &id, since).await?;
        // Whatever is still sent to it comes within this time.
        sleep(Duration::from_secs(2)).await;
        Ok(())
    };
    let outcomes = pace.run(freezing).await?;
    victim.process().thaw()?;
    // It first reads what has been waiting for it.
    sleep(Duration::from_millis(500)).await;
    let last = victim.ask("the last call?").await?.parse().context("reading an instance's answer")?;
    let last_call = Duration::from_micros(last).saturating_sub(frozen);
    Ok(Hung { last_call, gone: gone.saturating_sub(frozen), calls: outcomes.calls(), failed: outcomes.failed })
}

/// Returns when the resolver no longer lists the instance: how long after `since`.
async fn wait_until_gone(resolver: &Resolver, id: &str, since: Instant) -> Result<Duration> {
    let mut changes = resolver.changes();
    let gone = async {
        while let Some(snapshot) = changes.next().await {
            if snapshot.instances().iter().all(|instance| instance.id.as_str() != id) {
                break;
            }
        }
        since.elapsed()
    };
    let late = || Failure::Late { what: "a hung instance leaving the list".to_owned(), limit: PATIENCE };
    timeout(PATIENCE, gone).await.map_err(|_| late())
}
