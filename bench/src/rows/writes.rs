//! Durable registrations against etcd's durable puts.

use super::{load, missing, ratio};
use crate::{
    error::Result,
    peers::{etcd::Etcd, if_installed, roundsman::registrars},
    plan::Plan,
    report::Row,
    series::Contestant,
    server::{Setup, Store},
};

const GOAL: f64 = 1.5;
/// More instances than can be registered in the time.
const MANY: u32 = 10_000_000;

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let setup = Setup::new(Store::Sqlite).flag("--max-instances", MANY);
    // Eight connections register them all, in one namespace.
    let setup = setup.flag_if_known("--max-instances-per-connection", MANY);
    let server = setup.flag_if_known("--max-instances-per-namespace", MANY).start().await?;
    let etcd = if_installed(Etcd::start().await)?;
    let mut ours = Contestant::new(registrars(server.rpc).await?, &server.process);
    let mut theirs = match &etcd {
        Some(etcd) => Some(Contestant::new(etcd.writers().await?, &etcd.process)),
        None => None,
    };
    ours.warm_up(plan.writes / 6).await?;
    if let Some(theirs) = &mut theirs {
        theirs.warm_up(plan.writes / 6).await?;
    }
    for _ in 0..plan.rounds {
        ours.round(plan.writes).await?;
        if let Some(theirs) = &mut theirs {
            theirs.round(plan.writes).await?;
        }
    }
    let ours = ours.median();
    let etcd = theirs.map(|theirs| theirs.median());
    let times = etcd.map(|etcd| ratio(ours.rate, etcd.rate));
    let compared = times.map(|times| format!(": {times:.1} × etcd")).unwrap_or_default();
    let what = "registrations, durable in SQLite, 64 callers";
    Ok(vec![
        Row::figure(what, format!("{}{compared}", load(ours)))
            .goal(format!("≥ {GOAL} × etcd put"), times.map(|times| times >= GOAL)),
        etcd.map_or_else(
            || missing("etcd put, the same way", "etcd"),
            |etcd| Row::figure("etcd put, the same way", load(etcd)),
        ),
    ])
}
