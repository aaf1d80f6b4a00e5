//! The connection as everyone but the supervisor sees it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use roundsman_protocol::DiscoveryClient;
use tokio_util::sync::CancellationToken;

use crate::error::Attempts;

/// Whether there is a connection at the moment.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// There is none; it is being worked on.
    Away {
        /// What the last round came to.
        tried: Attempts,
        /// How many rounds through all servers failed since there was a connection, or since the start.
        failed_rounds: u32,
    },
    /// There is one.
    Up(Arc<Connection>),
    /// There will be none any more.
    Closed,
}

/// One connection to one server.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Counts this client's connections.
    pub(crate) generation: u64,
    /// The server's address, as it was configured.
    pub(crate) server: Arc<str>,
    /// tarpc's end of it.
    pub(crate) client: DiscoveryClient,
    /// Cancelled by whoever has reason to believe that the connection is of no use any more.
    pub(crate) abandoned: CancellationToken,
    answers: AtomicU64,
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(generation: u64, server: Arc<str>, client: DiscoveryClient) -> Self {
        Self { generation, server, client, abandoned: CancellationToken::new(), answers: AtomicU64::new(0) }
    }

    /// Notes that the server answered something.
    pub(crate) fn heard(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// How many answers came so far. A clock that runs only while the server is alive.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}
