//! The connection as everyone but the supervisor sees it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use roundsman_protocol::{DiscoveryClient, DiscoveryError, Instance, Page, Query, Version};
use tarpc::{ServerError, client::RpcError, context::Context};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{MOST_PAGES, last_of_each},
    error::Attempts,
};

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
    /// The version of the protocol that is spoken on it.
    version: Version,
    /// tarpc's end of it.
    pub(crate) client: DiscoveryClient,
    /// Cancelled by whoever has reason to believe that the connection is of no use any more.
    pub(crate) abandoned: CancellationToken,
    /// Somebody in a hurry was not answered: is the server still there?
    pub(crate) doubted: Notify,
    lines: [Semaphore; 4],
    answers: AtomicU64,
    warned: AtomicBool,
}

/// Where a call waits for its turn. A server takes 1,024 calls of a connection at a time, and as many that wait for news; each
/// line has room of its own, so that whoever waits for news keeps nobody from being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It is answered as soon as the server can.
    Work,
    /// A stream waits for news. With more of them than there is room for they take turns.
    Watch,
    /// The list of a subset waits for news. With more of them than there is room for they take turns, too.
    Subset,
    /// The lists of all other resolvers wait for news, by one question.
    Lists,
}

// === impl Connection ===

impl Connection {
    /// Calls in flight at a time, of all lines, and a heartbeat.
    pub(crate) const MOST_CALLS: usize = 2_001;

    pub(crate) fn new(generation: u64, server: Arc<str>, version: Version, client: DiscoveryClient) -> Self {
        let (abandoned, answers, warned) = (CancellationToken::new(), AtomicU64::new(0), AtomicBool::new(false));
        let (doubted, lines) = (Notify::new(), [1_000, 900, 99, 1].map(Semaphore::new));
        Self { generation, server, version, client, abandoned, doubted, lines, answers, warned }
    }

    /// Where calls of this line wait for their turn.
    pub(crate) fn line(&self, line: Line) -> &Semaphore {
        let [work, watches, subsets, lists] = &self.lines;
        match line {
            Line::Work => work,
            Line::Watch => watches,
            Line::Subset => subsets,
            Line::Lists => lists,
        }
    }

    /// What a query matches, from all pages. They are asked for on this one connection: a bookmark says nothing to
    /// another server.
    pub(crate) async fn list(
        &self,
        context: Context,
        query: Query,
    ) -> Result<Result<Vec<Arc<Instance>>, DiscoveryError>, RpcError> {
        let (mut all, mut after) = (Vec::new(), None);
        self.note_subset(&query);
        for _ in 0..MOST_PAGES {
            let Page { instances, next, .. } = match self.client.list(context, query.clone(), after).await? {
                Ok(page) => page,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let first = all.is_empty();
            all.extend(instances);
            if next.is_none() {
                return Ok(Ok(if first { all } else { last_of_each(all) }));
            }
            self.heard();
            after = next;
        }
        let detail = format!("its answer has more than {MOST_PAGES} pages");
        Err(RpcError::Server(ServerError::new(io::ErrorKind::FileTooLarge, detail)))
    }

    /// Says once that a subset cannot be had here: the server tells of all instances instead, and they are used.
    pub(crate) fn note_subset(&self, query: &Query) {
        if query.subset.is_some() && self.version < Version::V3 && !self.warned.swap(true, Ordering::Relaxed) {
            let (server, spoken) = (&self.server, self.version);
            tracing::warn!(%server, "it speaks version {spoken} of the protocol, which knows no subsets: all instances are used");
        }
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
