//! Instances that are not visited: they say themselves that they live, and register again when they are forgotten.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    population::{id, registration},
    troubles::Silent,
};
use crate::{error::Result, wire::Wire};

/// Three times within their ttl.
const EVERY: Duration = Duration::from_secs(2);

/// Those who share a connection.
#[derive(Debug)]
pub(super) struct Renewing {
    pub(super) server: SocketAddr,
    /// Their numbers.
    pub(super) numbers: Range<u32>,
    /// The number that the first flag of `silent` belongs to.
    pub(super) first: u32,
    pub(super) silent: Silent,
    pub(super) port: u16,
    pub(super) renewals: Arc<AtomicU64>,
}

// === impl Renewing ===

impl Renewing {
    /// Renews until it is dropped.
    pub(super) async fn run(self) {
        loop {
            // Whoever is cut off comes back, as clients do.
            drop(self.session().await);
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn session(&self) -> Result<()> {
        let mut wire = Wire::open(self.server, "default").await?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for number in self.numbers.clone().filter(|number| !self.is_silent(*number)) {
                if wire.call("Renew", json!({"id": id(number)})).await.is_err() {
                    wire.call("Register", registration(number, self.port, true)).await?;
                }
                self.renewals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn is_silent(&self, number: u32) -> bool {
        let turn = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.silent.get(turn).is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}
