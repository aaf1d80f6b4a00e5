//! Somebody who registers one instance after the other, and measures how long each takes.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};

use super::filling;
use crate::{
    error::Result,
    isolated::{self, Core},
    stats::Latencies,
    wire::Wire,
};

/// Between two registrations: whoever measures must not be the load.
const PAUSE: Duration = Duration::from_millis(2);
const SERVICE: &str = "newcomers";

/// How long registrations take in that namespace for so long, numbered from `first` on.
pub(super) async fn registrations(
    server: SocketAddr,
    namespace: &'static str,
    first: u32,
    time: Duration,
) -> Result<Latencies> {
    isolated::run(Core::Any, move || async move {
        isolated::go_first();
        let mut wire = Wire::open(server, namespace).await?;
        let mut latencies = Latencies::new()?;
        let end = Instant::now() + time;
        for number in first.. {
            let registration = filling::registration(SERVICE, number)?;
            let start = Instant::now();
            if start >= end {
                break;
            }
            wire.call("Register", registration).await?;
            latencies.record(start.elapsed());
            sleep(PAUSE).await;
        }
        Ok(latencies)
    })
    .await
}
