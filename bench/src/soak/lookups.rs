//! Callers who mean well: steady lookups, and somebody who asks for `/health`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    population::{SERVICES, service},
    watcher::lock,
};
use crate::{
    error::{Context, Result},
    stats::Latencies,
    wire::Wire,
};

const PARTS: u32 = 10;
/// How long `/health` may take before it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lookups in each tenth of the time.
#[derive(Debug)]
pub(super) struct Lookups {
    pub(super) tenths: Mutex<Vec<Latencies>>,
    pub(super) failed: AtomicU64,
    start: Instant,
    time: Duration,
}

/// What became of `GET /health`.
#[derive(Debug)]
pub(super) struct Doorbell {
    pub(super) answered: Mutex<Latencies>,
    pub(super) unanswered: AtomicU64,
}

// === impl Lookups ===

impl Lookups {
    pub(super) fn new(start: Instant, time: Duration) -> Result<Self> {
        let tenths = (0..PARTS).map(|_| Latencies::new()).collect::<Result<_>>()?;
        Ok(Self { tenths: Mutex::new(tenths), failed: AtomicU64::new(0), start, time })
    }

    /// Looks up until it is dropped, one at a time.
    pub(super) async fn run(self: Arc<Self>, server: SocketAddr, every: Duration) {
        loop {
            if self.session(server, every).await.is_err() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn session(&self, server: SocketAddr, every: Duration) -> Result<()> {
        let mut wire = Wire::open(server, "default").await?;
        let mut rng = Rng::new();
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let start = Instant::now();
            wire.call("Get", json!({"service": service(rng.u32(0..SERVICES))})).await?;
            let took = start.elapsed();
            let part = (start - self.start).as_secs_f64() / self.time.as_secs_f64();
            let part = (0..PARTS).rev().find(|tenth| part * f64::from(PARTS) >= f64::from(*tenth)).unwrap_or(0);
            if let Some(latencies) = lock(&self.tenths).get_mut(usize::try_from(part).unwrap_or_default()) {
                latencies.record(took);
            }
        }
    }
}

// === impl Doorbell ===

impl Doorbell {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { answered: Mutex::new(Latencies::new()?), unanswered: AtomicU64::new(0) })
    }

    /// Asks once a second, each time on a new connection, until it is dropped.
    pub(super) async fn run(self: Arc<Self>, server: SocketAddr) {
        loop {
            let start = Instant::now();
            if matches!(timeout(PATIENCE, health(server)).await, Ok(Ok(true))) {
                lock(&self.answered).record(start.elapsed());
            } else {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Whether `GET /health` is answered with a 200.
async fn health(server: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    let request = b"GET /health HTTP/1.1\r\nhost: roundsman\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.context("asking")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("reading")?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
