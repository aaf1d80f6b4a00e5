//! The soak: a real server for a long time, under deaths, freezes and flaps, watched by many, and under hostile callers.
//!
//! What is done to whom is known here (`truth`), what the server makes of it is seen through watchers like any client's.
//! It says whether the promises held: nobody alive was evicted, nobody dead was kept, all watchers know what the server
//! knows, and memory stays flat.

mod gauge;
mod hostile;
mod lookups;
mod plan;
mod population;
mod renewing;
mod summary;
mod troubles;
mod truth;
mod watcher;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use self::{
    gauge::Gauge,
    hostile::Hostile,
    lookups::{Doorbell, Lookups},
    plan::Plan,
    population::Population,
    renewing::Renewing,
    summary::{Evidence, Summary},
    troubles::{Director, Silent},
    truth::Truth,
    watcher::{View, Watcher, lock},
};
use crate::{
    args::Soak,
    error::{Context, Failure, Result},
    kernel, machine,
    process::Helper,
    report,
    server::{self, Server, Setup, Store},
};

/// How long everything may take to be in place.
const PREPARATION: Duration = Duration::from_secs(60);
/// How long the watchers may take at the end until they know what the server knows.
const QUIET: Duration = Duration::from_secs(15);
/// Instances that renew on one connection. Each alone: nobody must wait with its renewal until others are registered, which
/// takes seconds while everything starts.
const RENEWING_EACH: u32 = 1;

/// Minutes from which on a soak counts.
const USUAL: u32 = 60;

/// Everything that goes on beside the troubles; ends with this value.
struct Stage {
    truth: Arc<Mutex<Truth>>,
    watchers: Vec<Arc<Watcher>>,
    gauge: Arc<Gauge>,
    renewals: Arc<AtomicU64>,
    silent: Silent,
    tasks: JoinSet<()>,
}

/// Runs it, writes what came of it, and returns whether every promise was kept.
pub(crate) async fn run(args: &Soak) -> Result<bool> {
    if let Some(program) = &args.server {
        server::choose(program.clone());
    }
    let plan = Plan::new(args.minutes);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    report::say(&format!(
        "{} instances, {} watchers, {} minutes, seed {seed}",
        plan.instances(),
        plan.watchers(),
        args.minutes
    ));
    let machine = machine::Machine::look();
    let summary = soak(&plan, seed).await?;
    let page = summary.markdown(&machine, seed);
    report::page(&page);
    // What a short one found must not replace the report of an hour.
    let usual = (args.minutes >= USUAL).then(|| "bench/soak.md".into());
    if let Some(path) = args.output.clone().or(usual) {
        std::fs::write(&path, &page).context(format!("writing {}", path.display()))?;
        report::say(&format!("written to {}", path.display()));
    }
    Ok(summary.holds())
}

async fn soak(plan: &Plan, seed: u64) -> Result<Summary> {
    let mut rng = Rng::with_seed(seed);
    let server = Setup::new(Store::Sqlite).start().await?;
    let mut population = Population::start(plan, server.rpc).await?;
    let mut stage = Stage::new(plan, &server);
    stage.watch(plan, &server, population.port());
    stage.wait_until_complete().await?;

    let start = Instant::now();
    let lookups = Arc::new(Lookups::new(start, plan.time)?);
    let doorbell = Arc::new(Doorbell::new()?);
    stage.tasks.spawn(Arc::clone(&lookups).run(server.rpc, plan.lookup));
    stage.tasks.spawn(Arc::clone(&doorbell).run(server.http));
    stage.tasks.spawn(Arc::clone(&stage.gauge).watch_machine());
    stage.tasks.spawn(Arc::clone(&stage.gauge).run(server.rpc, server.process.pid()));
    let hostile = Hostile::new(server.rpc, server.http);
    let harm = hostile.start(&mut rng);
    let cpu = (helpers_cpu(&mut population)?, server.process.cpu_time()?);
    let director = Director {
        plan: *plan,
        truth: Arc::clone(&stage.truth),
        silent: Arc::clone(&stage.silent),
        port: population.port(),
        rng,
    };
    let last = start + plan.time.saturating_sub(troubles::LONGEST);
    let singles = std::mem::take(&mut population.singles);
    population.singles = director.run(singles, last).await?;
    sleep_until(start + plan.time).await;
    let elapsed = start.elapsed();
    let cpu = (helpers_cpu(&mut population)?.saturating_sub(cpu.0), server.process.cpu_time()?.saturating_sub(cpu.1));
    drop(harm);
    let unequal = stage.settle(&server).await?;
    lock(&stage.truth).judge(Instant::now());
    Summary::new(Evidence {
        plan: *plan,
        elapsed,
        helpers_cpu: cpu.0,
        server_cpu: cpu.1,
        truth: &lock(&stage.truth),
        watchers: &stage.watchers,
        gauge: &stage.gauge,
        lookups: &lookups,
        doorbell: &doorbell,
        hostile: hostile.done(),
        renewals: &stage.renewals,
        unequal,
        evictions: lock(&stage.gauge.account).clone(),
    })
}

/// This program's, and that of all that it started, those that were killed included.
fn helpers_cpu(population: &mut Population) -> Result<Duration> {
    let mut sum = kernel::own_cpu_time()?;
    let Population { hosts, singles, .. } = population;
    for helper in hosts.iter_mut().chain(singles.iter_mut()) {
        sum += Helper::process(helper).cpu_time()?;
    }
    Ok(sum)
}

// === impl Stage ===

impl Stage {
    fn new(plan: &Plan, server: &Server) -> Self {
        let view = |turn: u32| match turn.checked_sub(plan.wide) {
            None => View { service: None, all: turn.is_multiple_of(2) },
            Some(narrow) => {
                let (service, round) = (narrow % population::SERVICES, narrow / population::SERVICES);
                View { service: Some(service), all: round.is_multiple_of(2) }
            }
        };
        let views: Vec<View> = (0..plan.watchers()).map(view).collect();
        let audience = |instance| views.iter().map(|view| u32::from(view.covers(instance))).sum();
        let truth = Arc::new(Mutex::new(Truth::new((0..plan.instances()).map(audience), Instant::now())));
        let watcher = |view| Arc::new(Watcher::new(server.rpc, view, Arc::clone(&truth)));
        Self {
            watchers: views.into_iter().map(watcher).collect(),
            gauge: Arc::new(Gauge::new(Arc::clone(&truth))),
            truth,
            renewals: Arc::default(),
            silent: (0..plan.renewing).map(|_| AtomicBool::new(false)).collect(),
            tasks: JoinSet::new(),
        }
    }

    /// Starts those who renew, and the watchers.
    fn watch(&mut self, plan: &Plan, server: &Server, port: u16) {
        let all = plan.renewing();
        for first in all.clone().step_by(RENEWING_EACH as usize) {
            let renewing = Renewing {
                server: server.rpc,
                numbers: first..(first + RENEWING_EACH).min(all.end),
                first: all.start,
                silent: Arc::clone(&self.silent),
                port,
                renewals: Arc::clone(&self.renewals),
            };
            self.tasks.spawn(renewing.run());
        }
        for watcher in &self.watchers {
            self.tasks.spawn(Arc::clone(watcher).run());
        }
    }

    /// Until every watcher has everybody.
    async fn wait_until_complete(&self) -> Result<()> {
        let end = Instant::now() + PREPARATION;
        loop {
            let missing = lock(&self.truth).missing();
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                let what = format!("every watcher having every instance ({missing} are not in all maps)");
                return Err(Failure::Late { what, limit: PREPARATION });
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Compares all watchers with the server, again and again as long as things are on their way: how many differ at last.
    async fn settle(&self, server: &Server) -> Result<Vec<String>> {
        let end = Instant::now() + QUIET;
        loop {
            let all = watcher::everything(server.rpc).await?;
            let mut unequal = Vec::new();
            for (number, watcher) in self.watchers.iter().enumerate() {
                let (known, due) = (watcher.known(), watcher::part(&all, watcher.view));
                if known != due {
                    let more = due.iter().filter(|entry| known.get(entry.0) != Some(entry.1)).count();
                    unequal.push(format!("watcher {number}: {more} of {} differ, it has {}", due.len(), known.len()));
                }
            }
            if unequal.is_empty() || Instant::now() > end {
                return Ok(unequal);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
