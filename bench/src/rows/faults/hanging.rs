//! Instances that are slow, that hang, and that come back.

use std::time::Duration;

use futures::future::FutureExt;
use tokio::time::{Instant, sleep};

use super::{Scene, failed, well};
use crate::{
    args::Manner,
    error::{Context, Failure, Result},
    herd::Herd,
    pace::Pace,
    plan::Plan,
    process::Helper,
    report::Row,
    rows::duration,
};

/// What a slow handler takes, in milliseconds: more than a try of a call used to have.
const SLOW: u64 = 1_200;
const DEADLINE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// Slow is not dead.
pub(super) async fn slow(plan: &Plan) -> Result<Row> {
    let rate = 20;
    let mut scene = Scene::start(&vec![Manner { delay: SLOW, ..Manner::default() }; 3]).await?;
    let outcomes = Pace::of(scene.service().timeout(DEADLINE), rate).run(pass(plan.faults)).await?;
    let sent: u64 = scene.herd.calls().await?.iter().sum();
    let each = sent as f64 / outcomes.calls().max(1) as f64;
    let what = format!("GETs of three instances that take {SLOW} ms, {rate}/s, deadline {}", duration(DEADLINE));
    let measured = format!("{}, {each:.2} requests a call", failed(&outcomes));
    Ok(Row::figure(what, measured).goal("0, ≤ 1.1 requests", Some(outcomes.failed == 0 && each <= 1.1)))
}

/// One of three hangs, and whoever may be asked twice is.
pub(super) async fn frozen(plan: &Plan) -> Result<Row> {
    let rate = 250;
    let mut scene = Scene::start(&well(3)).await?;
    let mut victim = oldest(&mut scene.herd)?;
    let freezing = async {
        victim.process().freeze()?;
        sleep(plan.faults).await;
        Ok(())
    };
    let outcomes = Pace::of(scene.service().timeout(DEADLINE), rate).run(freezing).await?;
    let p99 = outcomes.latencies.p99();
    let what = format!("GETs while one of three instances hangs (SIGSTOP), {rate}/s");
    let measured =
        format!("{}, p99 {}, longest {}", failed(&outcomes), duration(p99), duration(outcomes.latencies.max()));
    let reached = outcomes.failed == 0 && p99 <= Duration::from_millis(SLOW);
    Ok(Row::figure(what, measured).goal("0, p99 ≤ 1.2 s", Some(reached)))
}

/// One of three hangs, and what is on its way to it cannot be asked of another.
pub(super) async fn posts(plan: &Plan) -> Result<Row> {
    let rate = 100;
    let mut scene = Scene::start(&well(3)).await?;
    let mut victim = oldest(&mut scene.herd)?;
    let since = Instant::now();
    let mut at = Duration::ZERO;
    let freezing = async {
        sleep(SECOND).await;
        victim.process().freeze()?;
        at = since.elapsed();
        sleep(plan.faults).await;
        Ok(())
    };
    let pace = Pace::of(scene.service().timeout(DEADLINE), rate);
    let pace = Pace { call: |service, path| service.post(path).send().boxed(), since, ..pace };
    let outcomes = pace.run(freezing).await?;
    victim.process().thaw()?;
    // It first reads what has been waiting for it.
    sleep(SECOND / 2).await;
    let last: u64 = victim.ask("the last call?").await?.parse().context("reading an instance's answer")?;
    let last = Duration::from_micros(last).saturating_sub(at);
    let what = format!("POSTs while one of three instances hangs (SIGSTOP), {rate}/s: to the last call sent to it");
    let measured = format!("{}; {}", duration(last), failed(&outcomes));
    Ok(Row::figure(what, measured).goal("≤ 1 s", Some(last <= SECOND)))
}

/// One of two in the caller's zone hangs; the other zone is well.
pub(super) async fn zones(plan: &Plan) -> Result<Row> {
    let rate = 75;
    let [here, there] = ["a", "b"].map(|zone| Manner { zone: Some(zone.to_owned()), ..Manner::default() });
    let mut scene = Scene::start(&[here.clone(), here, there.clone(), there]).await?;
    let mut victim = oldest(&mut scene.herd)?;
    let freezing = async {
        victim.process().freeze()?;
        sleep(plan.faults).await;
        Ok(())
    };
    let outcomes = Pace::of(scene.service().prefer_zone("a"), rate).run(freezing).await?;
    let what = format!("GETs with `prefer_zone` while one of two instances in the zone hangs (SIGSTOP), {rate}/s");
    Ok(Row::figure(what, failed(&outcomes)).goal("0", Some(outcomes.failed == 0)))
}

/// The only instance is killed, and another one is there a second later.
pub(super) async fn restarted(plan: &Plan) -> Result<Row> {
    let rate = 100;
    let scene = Scene::start(&well(1)).await?;
    let Scene { mut herd, discovery, _server } = scene;
    let service = discovery.http(crate::rows::kills::SERVICE);
    let restarting = async {
        sleep(SECOND).await;
        oldest(&mut herd)?.process().kill()?;
        sleep(SECOND).await;
        herd.grow().await?;
        sleep(plan.faults / 4).await;
        Ok(())
    };
    let outcomes = Pace::of(service, rate).run(restarting).await?;
    let what = format!("GETs while the only instance is killed (-9) and started again after 1 s, {rate}/s");
    let measured = format!("{}, longest {}", failed(&outcomes), duration(outcomes.latencies.max()));
    Ok(Row::figure(what, measured).goal("0", Some(outcomes.failed == 0)))
}

/// Nothing happens for this time.
async fn pass(time: Duration) -> Result<()> {
    sleep(time).await;
    Ok(())
}

fn oldest(herd: &mut Herd) -> Result<Helper> {
    herd.oldest().map(|(_, victim)| victim).ok_or_else(|| Failure::new("taking an instance", "none is left"))
}
