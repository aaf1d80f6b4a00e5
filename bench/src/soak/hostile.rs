//! Callers who mean harm, each within bounds: the server must stay what it is for the others.

mod http;
mod rpc;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};

use super::watcher::lock;
use crate::error::Result;

/// Where they are, and what they have done.
#[derive(Clone, Debug)]
pub(super) struct Hostile {
    rpc: SocketAddr,
    http: SocketAddr,
    done: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

/// What they do.
#[derive(Clone, Copy, Debug)]
enum Way {
    Garbage,
    Unread,
    Oversized,
    Slow,
    Wide,
    Slowloris,
    Pipelining,
}

// === impl Hostile ===

impl Hostile {
    pub(super) fn new(rpc: SocketAddr, http: SocketAddr) -> Self {
        Self { rpc, http, done: Arc::default() }
    }

    /// Starts all of them; they end with the set.
    pub(super) fn start(&self, rng: &mut Rng) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let ways = [
            (Way::Garbage, 1),
            (Way::Unread, 4),
            (Way::Oversized, 1),
            (Way::Slow, 4),
            (Way::Wide, 4),
            (Way::Slowloris, 100),
            (Way::Pipelining, 8),
        ];
        for (way, count) in ways {
            for _ in 0..count {
                tasks.spawn(self.clone().again_and_again(way, rng.fork()));
            }
        }
        tasks
    }

    /// How often each of them did its worst.
    pub(super) fn done(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.done).clone()
    }

    async fn again_and_again(self, way: Way, mut rng: Rng) {
        loop {
            // Not all of them at the same moment.
            sleep(Duration::from_millis(rng.u64(200..1_000))).await;
            // To be cut off is what they deserve.
            drop(self.once(way, &mut rng).await);
            *lock(&self.done).entry(way.describe()).or_default() += 1;
        }
    }

    async fn once(&self, way: Way, rng: &mut Rng) -> Result<()> {
        match way {
            Way::Garbage => rpc::garbage(self.rpc, rng).await,
            Way::Unread => rpc::unread_lists(self.rpc).await,
            Way::Oversized => rpc::oversized(self.rpc).await,
            Way::Slow => rpc::slow_frame(self.rpc).await,
            Way::Wide => rpc::wide_watches(self.rpc).await,
            Way::Slowloris => http::slowloris(self.http).await,
            Way::Pipelining => http::unread_answers(self.http).await,
        }
    }
}

// === impl Way ===

impl Way {
    fn describe(self) -> &'static str {
        match self {
            Self::Garbage => "garbage instead of a handshake",
            Self::Unread => "20 lists of everything, left unread",
            Self::Oversized => "a frame of a gigabyte announced",
            Self::Slow => "a frame at a byte a second",
            Self::Wide => "10 watches of 1,024 names each, left alone",
            Self::Slowloris => "an HTTP request at a byte a second",
            Self::Pipelining => "1,000 HTTP requests, answers left unread",
        }
    }
}
