//! Clients that each watch a subset, on a few connections, and what they have at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{InstanceId, Known, Query, ServiceName, Subset, Update, rpc::Wait};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{Loads, SERVICE};
use crate::{
    error::{Context, Failure, Result},
    rpc::{self, Connection},
};

/// Watches on each connection.
const EACH: u32 = 100;
const WAIT: Duration = Duration::from_secs(120);
/// How long all of them may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// All of them.
#[derive(Debug)]
pub(super) struct Clients {
    size: u32,
    sets: Vec<BTreeSet<InstanceId>>,
    loads: BTreeMap<InstanceId, u32>,
    /// Instances that a client got, those of the beginning included.
    gained: u64,
    updates: mpsc::Receiver<(usize, Update)>,
    tasks: JoinSet<Result<()>>,
}

// === impl Clients ===

impl Clients {
    /// So many clients, each with its first subset.
    pub(super) async fn start(server: SocketAddr, count: u32, size: u32) -> Result<Self> {
        let (sender, updates) = mpsc::channel(4_096);
        let service = ServiceName::try_new(SERVICE).context("a service's name")?;
        let mut tasks = JoinSet::new();
        let mut connection = Arc::new(Connection::open(server).await?);
        for number in 0..count {
            if number > 0 && number.is_multiple_of(EACH) {
                connection = Arc::new(Connection::open(server).await?);
            }
            let subset = Subset { client: format!("client-{number}").into(), size };
            let query = Query { subset: Some(subset), ..Query::service(service.clone()) };
            tasks.spawn(follow(Arc::clone(&connection), query, number as usize, sender.clone()));
        }
        let sets = vec![BTreeSet::new(); count as usize];
        let mut clients = Self { size, sets, loads: BTreeMap::new(), gained: 0, updates, tasks };
        while clients.sets.iter().any(BTreeSet::is_empty) {
            if !clients.next(PATIENCE).await? {
                return Err(Failure::Late { what: "everybody's first subset".to_owned(), limit: PATIENCE });
            }
        }
        Ok(clients)
    }

    /// Takes in what comes until nothing has come for so long.
    pub(super) async fn settle(&mut self, quiet: Duration) -> Result<()> {
        while self.next(quiet).await? {}
        Ok(())
    }

    /// How many clients each instance has. Whoever has too few or too many is an error.
    pub(super) fn loads(&self) -> Result<Loads> {
        match self.sets.iter().find(|set| set.len() != self.size as usize) {
            Some(set) => Err(Failure::new("asking for subsets", format!("a client has {} instances", set.len()))),
            None => Ok(self.loads.clone()),
        }
    }

    pub(super) fn load_of(&self, id: &str) -> u32 {
        self.loads.iter().find(|(known, _)| known.as_str() == id).map_or(0, |(_, load)| *load)
    }

    pub(super) fn gained(&self) -> u64 {
        self.gained
    }

    /// Whether there was news within that time.
    async fn next(&mut self, limit: Duration) -> Result<bool> {
        if let Some(Ok(Err(error))) = self.tasks.try_join_next() {
            return Err(error);
        }
        match timeout(limit, self.updates.recv()).await {
            Err(_) => Ok(false),
            Ok(None) => Err(Failure::new("watching", "all clients ended")),
            Ok(Some((client, update))) => {
                self.take_in(client, update);
                Ok(true)
            }
        }
    }

    fn take_in(&mut self, client: usize, update: Update) {
        let Some(set) = self.sets.get_mut(client) else { return };
        let here: BTreeSet<InstanceId> = update.instances.iter().map(|instance| instance.id.clone()).collect();
        let gone: Vec<InstanceId> = if update.snapshot {
            set.difference(&here).cloned().collect()
        } else {
            update.removed.into_iter().map(|removed| removed.id).collect()
        };
        for id in gone {
            if set.remove(&id)
                && let Some(load) = self.loads.get_mut(&id)
            {
                *load = load.saturating_sub(1);
            }
        }
        for id in here {
            if set.insert(id.clone()) {
                *self.loads.entry(id).or_default() += 1;
                self.gained += 1;
            }
        }
    }
}

/// Watches for ever, and tells of all that is not nothing.
async fn follow(
    connection: Arc<Connection>,
    query: Query,
    number: usize,
    updates: mpsc::Sender<(usize, Update)>,
) -> Result<()> {
    let (mut cursor, mut has) = (None, BTreeSet::new());
    loop {
        // Each question says what it has: the servers chose, and may choose anew.
        let known = Some(Known::Ids(has.iter().cloned().collect()));
        let watch = connection.client.watch(rpc::within(WAIT * 2), query.clone(), cursor, Wait(WAIT), known, None);
        let update = rpc::answer("watching a subset", watch.await)?;
        cursor = Some(update.cursor);
        if update.snapshot {
            has.clear();
        }
        has.retain(|id| update.removed.iter().all(|removed| removed.id != *id));
        has.extend(update.instances.iter().map(|instance| instance.id.clone()));
        if !update.is_unchanged() && updates.send((number, update)).await.is_err() {
            return Ok(());
        }
    }
}
