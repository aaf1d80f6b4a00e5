//! A watcher: one connection that keeps a map of what it is told, by one long-poll watch after the other.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{population, truth::Truth};
use crate::{
    error::{Failure, Result},
    wire::Wire,
};

/// How long one watch waits, and how long its answer may take.
const WAIT: &str = "20s";
const DEADLINE: Duration = Duration::from_secs(40);
/// Before the next try when the server cannot be reached.
const PAUSE: Duration = Duration::from_millis(300);

/// Ids, and their status.
pub(super) type Map = BTreeMap<String, String>;

/// What a watcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// One service, or all of them.
    pub(super) service: Option<u32>,
    /// Also those that are not handed out.
    pub(super) all: bool,
}

/// Somebody who watches for ever.
#[derive(Debug)]
pub(super) struct Watcher {
    server: SocketAddr,
    pub(super) view: View,
    truth: Arc<Mutex<Truth>>,
    known: Mutex<Map>,
    /// How often the server hung up, or would not answer.
    pub(super) cut_off: AtomicU64,
    pub(super) snapshots: AtomicU64,
}

/// Whether a caller would be given it.
fn is_up(status: &str) -> bool {
    matches!(status, "passing" | "suspect")
}

/// The lock; whoever panicked while holding it ended the run anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl View ===

impl View {
    pub(super) fn query(self) -> Value {
        let services: Vec<String> = self.service.map(population::service).into_iter().collect();
        json!({"services": services, "scope": if self.all { "all" } else { "available" }})
    }

    /// Whether it is told of instance number `instance`.
    pub(super) fn covers(self, instance: u32) -> bool {
        self.service.is_none_or(|service| population::service_of(instance) == service)
    }
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(server: SocketAddr, view: View, truth: Arc<Mutex<Truth>>) -> Self {
        let (cut_off, snapshots) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { server, view, truth, known: Mutex::default(), cut_off, snapshots }
    }

    /// What it knows now.
    pub(super) fn known(&self) -> Map {
        lock(&self.known).clone()
    }

    /// Watches until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            if self.session().await.is_err() {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
            }
            sleep(PAUSE).await;
        }
    }

    async fn session(&self) -> Result<()> {
        let mut wire = Wire::open(self.server, "default").await?;
        let mut cursor = Value::Null;
        loop {
            let arguments = json!({"query": self.view.query(), "after": cursor, "wait": WAIT});
            wire.send("Watch", arguments, DEADLINE).await?;
            let mut answer: Value = parse(&wire.receive().await?)?;
            let now = Instant::now();
            let update = answer.pointer_mut("/message/Ok/Watch/Ok").map(Value::take);
            let update = update.ok_or_else(|| Failure::new("watching", answer.to_string()))?;
            cursor = update.get("cursor").cloned().unwrap_or_default();
            self.take(&update, now)?;
        }
    }

    /// Takes an update into the map, and tells the truth what it changed.
    fn take(&self, update: &Value, now: Instant) -> Result<()> {
        let mut known = lock(&self.known);
        let before = (update.get("snapshot") == Some(&Value::Bool(true))).then(|| std::mem::take(&mut *known));
        self.snapshots.fetch_add(u64::from(before.is_some()), Ordering::Relaxed);
        let mut truth = lock(&self.truth);
        for instance in list(update, "instances") {
            let (id, status, reason) = (text(instance, "id"), text(instance, "status"), text(instance, "reason"));
            let old = known.insert(id.to_owned(), status.to_owned());
            let old = before.as_ref().map_or(old, |before| before.get(id).cloned());
            tell(&mut truth, id, (old.is_some_and(|old| is_up(&old)), is_up(status)), reason, now)?;
        }
        for removed in list(update, "removed") {
            let id = text(removed, "id");
            let old = known.remove(id);
            tell(&mut truth, id, (old.is_some_and(|old| is_up(&old)), false), text(removed, "reason"), now)?;
        }
        for (id, old) in before.into_iter().flatten().filter(|(id, _)| !known.contains_key(id)) {
            tell(&mut truth, &id, (is_up(&old), false), "not in the snapshot", now)?;
        }
        Ok(())
    }
}

/// All that the server has, as a watcher of everything would.
pub(super) async fn everything(server: SocketAddr) -> Result<Map> {
    let mut wire = Wire::open(server, "default").await?;
    let answer = wire.call("List", json!({"query": {"scope": "all"}})).await?;
    let instances = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(instances.iter().map(|one| (text(one, "id").to_owned(), text(one, "status").to_owned())).collect())
}

/// What a watcher with this view should have of it.
pub(super) fn part(all: &Map, view: View) -> Map {
    let mine = all.iter().filter(|(id, status)| {
        population::number(id).is_some_and(|number| view.covers(number)) && (view.all || is_up(status))
    });
    mine.map(|(id, status)| (id.clone(), status.clone())).collect()
}

fn tell(truth: &mut Truth, id: &str, change: (bool, bool), reason: &str, now: Instant) -> Result<()> {
    let instance = population::number(id).and_then(|number| usize::try_from(number).ok());
    match (instance, change) {
        (Some(instance), (false, true)) => truth.rises(instance),
        (Some(instance), (true, false)) => truth.falls(instance, reason, now)?,
        _ => {}
    }
    Ok(())
}

fn parse(frame: &[u8]) -> Result<Value> {
    serde_json::from_slice(frame).map_err(|error| Failure::new("reading an update", error.to_string()))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_what_was_told_and_the_truth_hears_of_it() {
        let truth = Arc::new(Mutex::new(Truth::new([1, 1], Instant::now())));
        let view = View { service: None, all: false };
        let watcher = Watcher::new("127.0.0.1:1".parse().unwrap(), view, Arc::clone(&truth));
        let up = |number| json!({"id": population::id(number), "status": "passing", "reason": "ok"});
        let take = |update: Value| watcher.take(&update, Instant::now()).unwrap();
        take(json!({"snapshot": true, "instances": [up(0), up(1)], "removed": []}));
        assert_eq!(lock(&truth).missing(), 0);
        take(json!({"snapshot": false, "instances": [], "removed": [{"id": population::id(1), "reason": "refused"}]}));
        assert_eq!((lock(&truth).missing(), watcher.known().len()), (1, 1));
        take(json!({"snapshot": true, "instances": [up(1)], "removed": []}));
        assert_eq!(watcher.known().into_keys().collect::<Vec<_>>(), [population::id(1)]);
        assert_eq!(lock(&truth).missing(), 1, "now it is the other one");
        let all = Map::from([(population::id(0), "evicted".to_owned()), (population::id(1), "passing".to_owned())]);
        assert_eq!(part(&all, view), watcher.known());
    }
}
