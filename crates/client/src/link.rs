//! The connection as everyone but the supervisor sees it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Cursor, DiscoveryClient, DiscoveryError, Instance, Known, Page, Query, Update, rpc::Wait};
use tarpc::{client::RpcError, context::Context};
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
        let (abandoned, answers) = (CancellationToken::new(), AtomicU64::new(0));
        Self { generation, server, client, abandoned, answers }
    }

    /// What a query matches, from all pages. They are asked for on this one connection: a bookmark says nothing to
    /// another server.
    pub(crate) async fn list(
        &self,
        context: Context,
        query: Query,
    ) -> Result<Result<Vec<Arc<Instance>>, DiscoveryError>, RpcError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let Page { instances, next, .. } = match self.client.list(context, query.clone(), after).await? {
                Ok(page) => page,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let first = all.is_empty();
            all.extend(instances);
            if next.is_none() {
                return Ok(Ok(if first { all } else { once(all) }));
            }
            self.heard();
            after = next;
        }
    }

    /// What changed after a cursor, from all pages: nobody is shown half of a snapshot.
    pub(crate) async fn watch(
        &self,
        context: Context,
        query: Query,
        after: Option<Cursor>,
        wait: Duration,
        known: Option<Known>,
    ) -> Result<Result<Update, DiscoveryError>, RpcError> {
        let mut update = match self.client.watch(context, query.clone(), after, Wait(wait), known, None).await? {
            Ok(update) => update,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let paged = update.next.is_some();
        while let Some(page) = update.next.take() {
            self.heard();
            // The bookmark says the rest.
            let asked = self.client.watch(context, query.clone(), None, Wait(Duration::ZERO), None, Some(page));
            let more = match asked.await? {
                Ok(more) => more,
                Err(refusal) => return Ok(Err(refusal)),
            };
            // The first cursor stays: what changed since is told to the next watch.
            update.instances.extend(more.instances);
            update.removed.extend(more.removed);
            update.next = more.next;
        }
        if paged {
            update.instances = once(update.instances);
        }
        Ok(Ok(update))
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

/// Each instance once: one that changed its service between two pages may be on both. The later page knows better.
fn once(mut instances: Vec<Arc<Instance>>) -> Vec<Arc<Instance>> {
    let mut seen = HashSet::with_capacity(instances.len());
    instances.reverse();
    instances.retain(|instance| seen.insert(instance.id.clone()));
    instances.reverse();
    instances
}
