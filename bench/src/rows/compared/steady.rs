//! A caller who looks up steadily and measures how long it takes, while something else goes on.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    error::{Failure, Result},
    isolated::{self, Core},
    stats::Latencies,
    wire::Wire,
};

/// Between two lookups: whoever measures must not be the load.
const PAUSE: Duration = Duration::from_millis(1);

/// A caller on a thread of its own.
#[derive(Debug)]
pub(super) struct Steady {
    stop: oneshot::Sender<()>,
    result: oneshot::Receiver<Result<Latencies>>,
    _task: tokio::task::JoinSet<()>,
}

// === impl Steady ===

impl Steady {
    /// Begins to look up that service.
    pub(super) fn start(server: SocketAddr, service: &str) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (sender, result) = oneshot::channel();
        let arguments = json!({"service": service});
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let latencies = isolated::run(Core::Any, move || look_up(server, arguments, stopped)).await;
            // Whoever does not wait for it does not want to know.
            drop(sender.send(latencies));
        });
        Self { stop, result, _task: task }
    }

    /// Ends, and says how long lookups took.
    pub(super) async fn stop(self) -> Result<Latencies> {
        // A caller that has failed says why in its result.
        let _ = self.stop.send(());
        self.result.await.map_err(|_| Failure::new("looking up", "the caller ended"))?
    }
}

/// How long lookups take while nothing else goes on.
pub(super) async fn lookups(server: SocketAddr, service: &str, time: Duration) -> Result<Latencies> {
    let steady = Steady::start(server, service);
    sleep(time).await;
    steady.stop().await
}

async fn look_up(server: SocketAddr, arguments: Value, mut stopped: oneshot::Receiver<()>) -> Result<Latencies> {
    isolated::go_first();
    let mut wire = Wire::open(server, "default").await?;
    let mut latencies = Latencies::new()?;
    while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        let start = tokio::time::Instant::now();
        wire.call("Get", arguments.clone()).await?;
        latencies.record(start.elapsed());
        sleep(PAUSE).await;
    }
    Ok(latencies)
}
