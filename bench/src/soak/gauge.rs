//! What is measured each second: the server's memory and files, its own account of lag, and this machine's.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{truth::Truth, watcher::lock};
use crate::{error::Result, kernel, wire::Wire};

/// Late by more than this, a quarter of a visit's timeout, the machine did not let us work.
const LATE: Duration = Duration::from_millis(250);

/// One second's figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) resident: u64,
    pub(super) files: usize,
}

/// What the server says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) evictions: u64,
    pub(super) reinstatements: u64,
    pub(super) visits: u64,
    pub(super) worst_lag: String,
    pub(super) voided: u64,
    /// Seconds in which evictions for silence were held back.
    pub(super) braked: u64,
    last_lag: Value,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Gauge {
    pub(super) samples: Mutex<Vec<Sample>>,
    pub(super) account: Mutex<Account>,
    pub(super) worst_delay: Mutex<Duration>,
    truth: Arc<Mutex<Truth>>,
}

// === impl Gauge ===

impl Gauge {
    pub(super) fn new(truth: Arc<Mutex<Truth>>) -> Self {
        let (samples, account, worst_delay) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { samples, account, worst_delay, truth }
    }

    /// Measures until it is dropped.
    pub(super) async fn run(self: Arc<Self>, server: SocketAddr, pid: u32) {
        loop {
            // A server that does not answer is somebody else's finding; its lag goes unexcused.
            drop(self.session(server, pid).await);
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn session(&self, server: SocketAddr, pid: u32) -> Result<()> {
        // The first version does not tell of lag.
        let mut wire = match Wire::open_in(2, server, "gauge").await {
            Ok(wire) => wire,
            Err(_) => Wire::open(server, "gauge").await?,
        };
        loop {
            let sample = Sample { resident: kernel::resident(pid)?, files: kernel::open_files(pid)? };
            lock(&self.samples).push(sample);
            let before = Instant::now();
            let status = wire.call("Status", json!({})).await?;
            self.look(&status, before);
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn look(&self, status: &Value, now: Instant) {
        let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or_default();
        let mut account = lock(&self.account);
        account.evictions = number("/rounds/evictions");
        account.reinstatements = number("/rounds/reinstatements");
        account.visits = number("/rounds/visits");
        account.voided = number("/rounds/lag/voided");
        let worst = status.pointer("/rounds/lag/worst").and_then(Value::as_str);
        worst.unwrap_or("not told by this release").clone_into(&mut account.worst_lag);
        let last = status.pointer("/rounds/lag/last").cloned().unwrap_or_default();
        let braked = status.pointer("/brake/on") == Some(&Value::Bool(true));
        if braked || (last != account.last_lag && !last.is_null()) {
            let from = now.checked_sub(Duration::from_secs(2)).unwrap_or(now);
            lock(&self.truth).starved(from, now);
        }
        account.braked += u64::from(braked);
        account.last_lag = last;
    }

    /// Looks, until it is dropped, whether this machine lets us run when we are due.
    pub(super) async fn watch_machine(self: Arc<Self>) {
        let step = Duration::from_millis(50);
        loop {
            let before = Instant::now();
            sleep(step).await;
            let delay = before.elapsed().saturating_sub(step);
            let mut worst = lock(&self.worst_delay);
            *worst = worst.max(delay);
            if delay > LATE {
                lock(&self.truth).starved(before, Instant::now());
            }
        }
    }
}
