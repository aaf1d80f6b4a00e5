//! Callers who ask steadily and measure how long it takes, while something else goes on: one looks up, one has a plain echo send
//! back what it sent. What the echo suffers is the machine's doing, and nobody's who serves.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    error::{Failure, Result},
    isolated::{self, Core},
    load::Caller,
    peers::floor::{Echo, Floor},
    report::Row,
    rows::{duration, ratio},
    series::micros,
    stats::Latencies,
    wire::Wire,
};

/// Between two lookups: whoever measures must not be the load.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes that the echo gets.
const ECHO: usize = 64;

/// A caller on a thread of its own.
#[derive(Debug)]
struct Steady {
    stop: oneshot::Sender<()>,
    result: oneshot::Receiver<Result<Latencies>>,
    _task: tokio::task::JoinSet<()>,
}

/// One who looks up, and one who has an echo.
#[derive(Debug)]
pub(super) struct Callers {
    lookups: Steady,
    echoes: Steady,
    _floor: Floor,
}

/// How long each of the two waited.
#[derive(Debug)]
pub(super) struct Waits {
    lookups: Latencies,
    echoes: Latencies,
}

struct Lookup {
    wire: Wire,
    arguments: Value,
}

// === impl Callers ===

impl Callers {
    /// Begin to ask for that service.
    pub(super) async fn start(server: SocketAddr, service: &str) -> Result<Self> {
        let floor = Floor::start(Core::Any, 1, 1).await?;
        let (arguments, echo) = (json!({"service": service}), floor.echo);
        let lookups =
            Steady::start(move || async move { Ok(Lookup { wire: Wire::open(server, "default").await?, arguments }) });
        let echoes = Steady::start(move || Echo::connect(echo, ECHO));
        Ok(Self { lookups, echoes, _floor: floor })
    }

    /// Ends, and says how long answers took.
    pub(super) async fn stop(self) -> Result<Waits> {
        let (lookups, echoes) = tokio::join!(self.lookups.stop(), self.echoes.stop());
        Ok(Waits { lookups: lookups?, echoes: echoes? })
    }
}

/// How long answers take while nothing else goes on.
pub(super) async fn alone(server: SocketAddr, service: &str, time: Duration) -> Result<Waits> {
    let callers = Callers::start(server, service).await?;
    sleep(time).await;
    callers.stop().await
}

// === impl Waits ===

impl Waits {
    /// Beside what they were before: a row for the lookups, and one that says how the echo fared.
    pub(super) fn rows(&self, before: &Self, what: &str) -> [Row; 2] {
        let (lookups, times) = compared(&self.lookups, &before.lookups);
        let (echoes, _) = compared(&self.echoes, &before.echoes);
        [
            Row::figure(what, lookups).goal("p99 ≤ 3 × without", Some(times <= 3.0)),
            Row::figure(format!("… a plain TCP echo instead of {what}"), echoes),
        ]
    }
}

fn compared(now: &Latencies, before: &Latencies) -> (String, f64) {
    let times = ratio(micros(now.p99()), micros(before.p99()));
    let (p99, longest, was) = (duration(now.p99()), duration(now.max()), duration(before.p99()));
    (format!("p99 {p99}, longest {longest}; without p99 {was}: {times:.1} ×"), times)
}

// === impl Steady ===

impl Steady {
    fn start<C, F, R>(make: F) -> Self
    where
        C: Caller,
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = Result<C>> + Send,
    {
        let (stop, stopped) = oneshot::channel();
        let (sender, result) = oneshot::channel();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let latencies = isolated::run(Core::Any, move || ask(make, stopped)).await;
            // Whoever does not wait for it does not want to know.
            drop(sender.send(latencies));
        });
        Self { stop, result, _task: task }
    }

    async fn stop(self) -> Result<Latencies> {
        // A caller that has failed says why in its result.
        let _ = self.stop.send(());
        self.result.await.map_err(|_| Failure::new("asking", "the caller ended"))?
    }
}

async fn ask<C: Caller, R: Future<Output = Result<C>>>(
    make: impl FnOnce() -> R,
    mut stopped: oneshot::Receiver<()>,
) -> Result<Latencies> {
    isolated::go_first();
    let mut caller = make().await?;
    let mut latencies = Latencies::new()?;
    while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        let start = tokio::time::Instant::now();
        caller.call().await?;
        latencies.record(start.elapsed());
        sleep(PAUSE).await;
    }
    Ok(latencies)
}

impl Caller for Lookup {
    async fn call(&mut self) -> Result<()> {
        self.wire.call("Get", self.arguments.clone()).await.map(drop)
    }
}
