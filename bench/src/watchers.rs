//! Watchers: clients that keep what they see in a map, or have a resolver keep it, and say when it changed.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use roundsman::{Changes, Discovery, Event, Query};
use roundsman_protocol::{InstanceId, ServiceName};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Context, Failure, Result},
    stats::Latencies,
};

/// How long a change may take to reach everyone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Many watchers of one service.
#[derive(Debug)]
pub(crate) struct Watchers {
    count: usize,
    sightings: mpsc::Receiver<Sighting>,
    /// Why the last instance went.
    reason: Arc<str>,
    _tasks: JoinSet<()>,
}

/// What a watcher saw, and when its map said so.
#[derive(Debug)]
enum Sighting {
    /// The first snapshot.
    Ready,
    Here(InstanceId, Instant),
    Gone(InstanceId, Instant, Arc<str>),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Here,
    Gone,
}

// === impl Watchers ===

impl Watchers {
    /// So many watchers on each of so many connections of the client library, all with their first snapshot.
    pub(crate) async fn start(
        server: SocketAddr,
        service: &ServiceName,
        connections: usize,
        watches_each: usize,
    ) -> Result<Self> {
        let count = connections * watches_each;
        let (sender, sightings) = mpsc::channel(count * 4);
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let discovery = Discovery::connect(server.to_string()).await.context("connecting a watcher")?;
            for _ in 0..watches_each {
                let watch = discovery.watch(Query::service(service.clone())).context("watching")?;
                tasks.spawn(follow(watch, sender.clone()));
            }
        }
        Self { count, sightings, reason: "".into(), _tasks: tasks }.ready().await
    }

    /// So many resolvers, each on a connection of its own, all with their first snapshot.
    pub(crate) async fn resolving(server: SocketAddr, service: &ServiceName, count: usize) -> Result<Self> {
        let (sender, sightings) = mpsc::channel(count * 4);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let discovery = Discovery::connect(server.to_string()).await.context("connecting a resolver")?;
            let resolver = discovery.resolver(service.clone()).even_if_unknown().await.context("resolving")?;
            tasks.spawn(follow_resolver(resolver.changes(), sender.clone()));
        }
        Self { count, sightings, reason: "".into(), _tasks: tasks }.ready().await
    }

    /// Waits for everyone's first snapshot.
    async fn ready(mut self) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        for _ in 0..self.count {
            while !matches!(self.next(end).await?, Sighting::Ready) {}
        }
        Ok(self)
    }

    /// Waits until every watcher saw the change, and returns how long after `since` each of them did.
    pub(crate) async fn all_saw(&mut self, change: Change, id: &InstanceId, since: Instant) -> Result<Latencies> {
        let end = Instant::now() + PATIENCE;
        let mut latencies = Latencies::new()?;
        while latencies.count() < self.count as u64 {
            let (seen, which, at) = match self.next(end).await? {
                Sighting::Here(which, at) => (Change::Here, which, at),
                Sighting::Gone(which, at, reason) => {
                    self.reason = reason;
                    (Change::Gone, which, at)
                }
                Sighting::Ready => continue,
            };
            if seen == change && which == *id {
                latencies.record(at.saturating_duration_since(since));
            }
        }
        Ok(latencies)
    }

    /// What the watchers were told when the last instance went.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    async fn next(&mut self, end: Instant) -> Result<Sighting> {
        let late = || Failure::Late { what: "every watcher seeing a change".to_owned(), limit: PATIENCE };
        let sighting = timeout_at(end, self.sightings.recv()).await.map_err(|_| late())?;
        sighting.ok_or_else(|| Failure::new("watching", "all watchers ended"))
    }
}

/// Keeps the map. Whoever sees nothing any more ends, and is missed by the one who waits.
async fn follow(mut watch: roundsman::Watch, sightings: mpsc::Sender<Sighting>) {
    let mut known = Known::default();
    while let Some(event) = watch.next().await {
        let seen = match event {
            Event::Snapshot(instances) => known.replace(instances.iter().map(|instance| instance.id.clone())),
            Event::Changed(instance) => known.add(&instance.id),
            Event::Removed(removed) => known.remove(&removed.id, removed.reason),
        };
        if !tell(&sightings, seen).await {
            return;
        }
    }
}

/// The same for what a resolver answers from: a snapshot is out when lookups find it.
async fn follow_resolver(mut changes: Changes, sightings: mpsc::Sender<Sighting>) {
    let mut known = Known::default();
    while let Some(snapshot) = changes.next().await {
        let seen = known.replace(snapshot.instances().iter().map(|instance| instance.id.clone()));
        if !tell(&sightings, seen).await {
            return;
        }
    }
}

/// `false` when nobody listens any more.
async fn tell(sightings: &mpsc::Sender<Sighting>, seen: Vec<Sighting>) -> bool {
    for sighting in seen {
        if sightings.send(sighting).await.is_err() {
            return false;
        }
    }
    true
}

/// The ids that a watcher knows; `None` before its first snapshot.
#[derive(Debug, Default)]
struct Known(Option<HashSet<InstanceId>>);

// === impl Known ===

impl Known {
    fn replace(&mut self, ids: impl Iterator<Item = InstanceId>) -> Vec<Sighting> {
        let (ids, at) = (ids.collect::<HashSet<_>>(), Instant::now());
        let first = self.0.is_none();
        let before = self.0.take().unwrap_or_default();
        let gone = before.difference(&ids).map(|id| Sighting::Gone(id.clone(), at, "not in the snapshot".into()));
        let here = ids.difference(&before).map(|id| Sighting::Here(id.clone(), at));
        let seen = gone.chain(here).chain(first.then_some(Sighting::Ready)).collect();
        self.0 = Some(ids);
        seen
    }

    fn add(&mut self, id: &InstanceId) -> Vec<Sighting> {
        let new = self.0.get_or_insert_default().insert(id.clone());
        new.then(|| Sighting::Here(id.clone(), Instant::now())).into_iter().collect()
    }

    fn remove(&mut self, id: &InstanceId, reason: Arc<str>) -> Vec<Sighting> {
        let known = self.0.get_or_insert_default().remove(id);
        known.then(|| Sighting::Gone(id.clone(), Instant::now(), reason)).into_iter().collect()
    }
}
