//! Watchers: clients that keep what they see in a map, and say when it changed.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use roundsman::{Discovery, Event, Query};
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
        let mut watchers = Self { count, sightings, reason: "".into(), _tasks: tasks };
        let end = Instant::now() + PATIENCE;
        for _ in 0..count {
            while !matches!(watchers.next(end).await?, Sighting::Ready) {}
        }
        Ok(watchers)
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
    let mut known = HashSet::new();
    let mut first = true;
    while let Some(event) = watch.next().await {
        let mut seen = Vec::new();
        match event {
            Event::Snapshot(instances) => {
                let now: HashSet<InstanceId> = instances.iter().map(|instance| instance.id.clone()).collect();
                seen.extend(
                    known.difference(&now).map(|id: &InstanceId| {
                        Sighting::Gone(id.clone(), Instant::now(), "not in the snapshot".into())
                    }),
                );
                seen.extend(now.difference(&known).map(|id| Sighting::Here(id.clone(), Instant::now())));
                known = now;
                if std::mem::take(&mut first) {
                    seen.push(Sighting::Ready);
                }
            }
            Event::Changed(instance) => {
                if known.insert(instance.id.clone()) {
                    seen.push(Sighting::Here(instance.id.clone(), Instant::now()));
                }
            }
            Event::Removed(removed) => {
                if known.remove(&removed.id) {
                    seen.push(Sighting::Gone(removed.id, Instant::now(), removed.reason));
                }
            }
        }
        for sighting in seen {
            if sightings.send(sighting).await.is_err() {
                return;
            }
        }
    }
}
