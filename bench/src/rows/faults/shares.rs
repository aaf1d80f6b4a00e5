//! Who gets how many of the calls.

use std::time::Duration;

use futures::future::FutureExt;
use tokio::time::sleep;

use super::{Scene, failed, well};
use crate::{
    args::{Manner, Puts},
    error::Result,
    pace::Pace,
    plan::Plan,
    report::Row,
};

/// The most that an instance may get whose PUTs all fail.
const BLAMED: f64 = 0.03;
/// How far from its share an instance may be.
const SLACK: f64 = 0.1;

/// One of three fails each PUT, and answers the DELETE that undoes it.
pub(super) async fn blamed(plan: &Plan, puts: Puts) -> Result<Row> {
    let rate = 500;
    let mut instances = well(2);
    instances.push(Manner { puts, ..Manner::default() });
    let mut scene = Scene::start(&instances).await?;
    let pace = Pace::of(scene.service(), rate);
    let pace = Pace { call: |service, path| put_or_undo(service, path).boxed(), ..pace };
    let time = plan.faults;
    let outcomes = pace
        .run(async {
            sleep(time).await;
            Ok(())
        })
        .await?;
    let calls = scene.herd.calls().await?;
    let (all, its) = (calls.iter().sum::<u64>(), calls.last().copied().unwrap_or_default());
    let share = its as f64 / all.max(1) as f64;
    let how = if puts == Puts::Reset { "resets each PUT" } else { "answers each PUT with 500" };
    let what = format!("one of three instances {how} and answers the DELETE that undoes it, {rate} PUTs/s: its share");
    let measured = format!("{:.1} % ({its} of {all}); {}", 100.0 * share, failed(&outcomes));
    Ok(Row::figure(what, measured).goal("≤ 3 %", Some(share <= BLAMED)))
}

/// Instances that are alike get equal shares.
pub(super) async fn equal(plan: &Plan) -> Result<Row> {
    let calls = shares(plan, &[1, 1, 1], 600).await?;
    Ok(Row::figure("calls that each of three equal instances gets", listed(&calls))
        .goal("± 10 %", Some(within(&calls, &[1, 1, 1]))))
}

/// Others get theirs.
pub(super) async fn weighted(plan: &Plan) -> Result<Row> {
    let calls = shares(plan, &[1, 10, 10], 504).await?;
    Ok(Row::figure("calls that each of three instances with weights of 1, 10 and 10 gets", listed(&calls))
        .goal("± 10 %, the first ± 5 calls", Some(within(&calls, &[1, 10, 10]))))
}

async fn shares(plan: &Plan, weights: &[u32], count: u32) -> Result<Vec<u64>> {
    let weigh = |weight: &u32| Manner { weight: Some(*weight), ..Manner::default() };
    let mut scene = Scene::start(&weights.iter().map(weigh).collect::<Vec<_>>()).await?;
    let time = if plan.quick { Duration::from_secs(1) } else { Duration::from_secs(6) };
    let rate = count / u32::try_from(time.as_secs()).unwrap_or(1);
    let enough = async {
        sleep(time).await;
        Ok(())
    };
    Pace::of(scene.service(), rate).run(enough).await?;
    scene.herd.calls().await
}

/// A PUT that must not happen twice; where it failed, what it may have done is undone.
async fn put_or_undo(
    service: roundsman::http::Service,
    path: String,
) -> Result<roundsman::http::Response, roundsman::http::Error> {
    let put = service.put(&path).idempotent(false).send().await.and_then(roundsman::http::Response::error_for_status);
    if let Err(error) = &put
        && let Some(instance) = error.instance()
    {
        drop(service.delete(&path).to(instance).send().await);
    }
    put
}

fn listed(calls: &[u64]) -> String {
    let calls: Vec<String> = calls.iter().map(u64::to_string).collect();
    calls.join(", ")
}

/// Whether each is near its share: by a tenth, or by five calls where that is more.
fn within(calls: &[u64], weights: &[u32]) -> bool {
    let (all, sum) = (calls.iter().sum::<u64>() as f64, f64::from(weights.iter().sum::<u32>()));
    calls.iter().zip(weights).all(|(calls, weight)| {
        let share = all * f64::from(*weight) / sum;
        (*calls as f64 - share).abs() <= (share * SLACK).max(5.0)
    })
}
