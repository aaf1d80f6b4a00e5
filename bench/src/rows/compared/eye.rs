//! Somebody who watches a service and says when an instance came and when it went.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Failure, Result},
    wire::Wire,
};

const DEADLINE: Duration = Duration::from_secs(40);

/// What it saw.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: String,
    /// Whether the instance is handed out from now on.
    pub(super) here: bool,
    pub(super) at: Instant,
}

/// A watcher of one service.
#[derive(Debug)]
pub(super) struct Eye {
    changes: mpsc::Receiver<Change>,
    _task: JoinSet<()>,
}

// === impl Eye ===

impl Eye {
    pub(super) async fn open(server: SocketAddr, service: &str) -> Result<Self> {
        let wire = Wire::open(server, "default").await?;
        let (sender, changes) = mpsc::channel(4_096);
        let mut task = JoinSet::new();
        let service = service.to_owned();
        // When the connection breaks, whoever waits for a change hears that there are no more.
        task.spawn(async move { drop(follow(wire, &service, &sender).await) });
        Ok(Self { changes, _task: task })
    }

    /// The next change, or `None` when there is none until then.
    pub(super) async fn next(&mut self, until: Instant) -> Result<Option<Change>> {
        match timeout_at(until, self.changes.recv()).await {
            Err(_) => Ok(None),
            Ok(Some(change)) => Ok(Some(change)),
            Ok(None) => Err(Failure::new("watching", "the server hung up")),
        }
    }

    /// Waits until so many have come.
    pub(super) async fn arrivals(&mut self, count: usize, until: Instant) -> Result<()> {
        let mut here = BTreeSet::new();
        while here.len() < count {
            let late = || Failure::new("waiting for instances", format!("{} of {count} came", here.len()));
            let change = self.next(until).await?.ok_or_else(late)?;
            if change.here {
                here.insert(change.id);
            }
        }
        Ok(())
    }
}

async fn follow(mut wire: Wire, service: &str, changes: &mpsc::Sender<Change>) -> Result<()> {
    let (mut cursor, mut known) = (Value::Null, BTreeSet::new());
    loop {
        let arguments = json!({"query": {"services": [service]}, "after": cursor, "wait": "30s"});
        wire.send("Watch", arguments, DEADLINE).await?;
        let frame = wire.receive().await?;
        let at = Instant::now();
        let mut answer: Value =
            serde_json::from_slice(&frame).map_err(|error| Failure::new("watching", error.to_string()))?;
        let update = answer.pointer_mut("/message/Ok/Watch/Ok").map(Value::take).unwrap_or_default();
        cursor = update.get("cursor").cloned().ok_or_else(|| Failure::new("watching", answer.to_string()))?;
        let ids = |field: &str| -> Vec<String> {
            let all = update.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            all.iter().filter_map(|one| one.get("id")?.as_str().map(str::to_owned)).collect()
        };
        let (mut gone, here) = (ids("removed"), ids("instances"));
        if update.get("snapshot") == Some(&Value::Bool(true)) {
            gone.extend(known.iter().filter(|id| !here.contains(id)).cloned());
        }
        let gone = gone.into_iter().filter(|id| known.remove(id)).map(|id| (id, false)).collect::<Vec<_>>();
        let here = here.into_iter().filter(|id| known.insert(id.clone())).map(|id| (id, true));
        for (id, here) in here.chain(gone) {
            if changes.send(Change { id, here, at }).await.is_err() {
                return Ok(());
            }
        }
    }
}
