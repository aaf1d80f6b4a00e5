//! The handle to the rounds: whom to visit, what to hurry, how things stand.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use roundsman_protocol::{
    CheckKind, Clock,
    status::{BrakeStatus, RoundsStatus},
};
use roundsman_registry::{Key, Record};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::task::TaskTracker;

use crate::{
    line::Line,
    observation::{Nudge, Observation, Witness},
    settings::Settings,
    shared::{Shared, Unvisited},
    visitor::{Visitor, caller, name},
};

/// The rounds of one server. Cheap to clone; when the last clone is dropped, all visits end.
#[derive(Clone, Debug)]
pub struct Rounds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    targets: Mutex<Targets>,
    /// By which our own lag is known.
    heart: AbortHandle,
}

#[derive(Debug, Default)]
struct Targets {
    by_key: HashMap<Key, Target>,
    stopped: bool,
}

/// An instance under observation. Its task ends when this is dropped, and with it its connection.
#[derive(Debug)]
struct Target {
    incarnation: u64,
    kind: CheckKind,
    line: Arc<Line>,
    task: AbortHandle,
}

// === impl Rounds ===

impl Rounds {
    /// Begins, with nobody to visit yet. Must be called within a Tokio runtime.
    ///
    /// What is found out goes to `observations`; while that queue is full, those who have something to say wait, and
    /// their visits with them. `witness` learns of every visit.
    pub fn start(
        settings: Settings,
        clock: Clock,
        observations: mpsc::Sender<Observation>,
        witness: Arc<dyn Witness>,
    ) -> Self {
        let shared = Arc::new(Shared::new(settings, clock, observations, witness));
        let tasks = TaskTracker::new();
        let heart = tasks.spawn(Arc::clone(&shared.lag).beat()).abort_handle();
        Self(Arc::new(Inner { shared, tasks, targets: Mutex::default(), heart }))
    }

    /// Takes in an instance that is new or changed, by whomever: what was observed of it here or by another server is to be
    /// told as well, in the order of the registry. In the same incarnation its visits go on, and are hurried where another
    /// server came to another verdict; in another one they begin anew, from the health in the record.
    /// Must be called within a Tokio runtime.
    pub fn track(&self, record: &Arc<Record>) {
        self.0.track(record, None, |visitor| visitor.first_visit());
    }

    /// Takes in the instances that a store held when the server started. They are visited within an interval, and no
    /// instance is evicted for its silence before each of these had its first visit, or the time for it; one that is
    /// refused or answers badly is. [`RoundsStatus::unvisited`] counts down to that.
    /// Must be called within a Tokio runtime.
    pub fn track_stored(&self, records: &[Arc<Record>]) {
        let visited = |record: &&Arc<Record>| is_visited(record.instance.check.kind) && !record.is_blocked();
        let count = records.iter().filter(visited).count();
        let mut unvisited = self.0.shared.unvisited(count);
        for record in records {
            let ticket = if visited(&record) { unvisited.next() } else { None };
            self.0.track(record, ticket, |visitor| visitor.first_visit_of(count));
        }
    }

    /// Ends the visits of an instance and closes its connection.
    pub fn untrack(&self, key: &Key) {
        let target = self.0.targets().by_key.remove(key);
        drop(target);
    }

    /// Has an instance visited at once, or as soon as its last hurried visits are not too recent: nudges are merged,
    /// and cannot make more than five visits a second of one instance.
    pub fn nudge(&self, key: &Key, why: Nudge) {
        let line = self.0.targets().by_key.get(key).map(|target| Arc::clone(&target.line));
        if let Some(line) = line {
            tracing::debug!(id = %key.id, ?why, "a visit is hurried");
            line.nudge();
        }
    }

    /// Takes in the renewal of a `ttl` instance; for any other it does nothing.
    /// `false` when the instance is not known, needs no rounds at all, or is evicted.
    #[must_use]
    pub fn renew(&self, key: &Key) -> bool {
        match self.0.targets().by_key.get(key) {
            None => false,
            Some(Target { kind: CheckKind::Ttl, line, .. }) => line.renew(),
            Some(_) => true,
        }
    }

    /// How the rounds stand.
    #[must_use]
    pub fn status(&self) -> RoundsStatus {
        let targets = self.0.targets().by_key.len();
        self.0.shared.status(targets)
    }

    /// How the brake stands. `silent` counts those that did not answer their last visit.
    #[must_use]
    pub fn brake(&self) -> BrakeStatus {
        self.0.shared.brake_status()
    }

    /// The addresses of a host name that may be visited, within half a second: of those that are known already, when
    /// no name server answers.
    ///
    /// # Errors
    /// Why there is none, as a clause: `cannot resolve product: no such name`.
    pub async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        self.0.shared.resolve(name, port).await.map_err(|why| why.to_string())
    }

    /// Ends all visits, and waits until they have ended. Nothing is tracked from then on.
    pub async fn stop(self) {
        let targets = {
            let mut targets = self.0.targets();
            targets.stopped = true;
            std::mem::take(&mut targets.by_key)
        };
        drop(targets);
        self.0.heart.abort();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.shared.names.stop().await;
    }
}

// === impl Inner ===

impl Drop for Inner {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

impl Inner {
    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn track(&self, record: &Arc<Record>, unvisited: Option<Unvisited>, first: impl Fn(&Visitor) -> Duration) {
        let key = record.key();
        let mut targets = self.targets();
        let known = targets.by_key.get(&key).filter(|known| known.incarnation == record.asked.incarnation);
        if let Some(known) = known {
            if known.line.learn(record) {
                known.line.nudge();
            }
            return;
        }
        if targets.stopped {
            return;
        }
        let before = match self.target(record, unvisited, first) {
            Some(target) => targets.by_key.insert(key, target),
            None => targets.by_key.remove(&key),
        };
        drop(targets);
        drop(before);
    }

    /// Begins to look after an instance; `None` when it passes by registering and there is nothing to do for it, ever.
    fn target(
        &self,
        record: &Arc<Record>,
        unvisited: Option<Unvisited>,
        first: impl Fn(&Visitor) -> Duration,
    ) -> Option<Target> {
        let check = &record.instance.check;
        let line = Arc::new(Line::new(self.shared.epoch, record));
        let task = if let Some(until) = record.asked.blocked {
            line.expire_now();
            self.tasks.spawn(caller::kept_out(Arc::clone(&self.shared), name(record), until))
        } else if let Some(mut visitor) = Visitor::new(&self.shared, Arc::clone(&line), record, unvisited) {
            let first = first(&visitor);
            // By reference, because a future keeps an argument twice: where it came in, and where it is used.
            self.tasks.spawn(async move { visitor.run(first).await })
        } else {
            let ttl = check.ttl.filter(|_| check.kind == CheckKind::Ttl)?;
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn(caller::called(shared, Arc::clone(&line), Arc::clone(record), ttl))
        };
        Some(Target { incarnation: record.asked.incarnation, kind: check.kind, line, task: task.abort_handle() })
    }
}

fn is_visited(kind: CheckKind) -> bool {
    matches!(kind, CheckKind::Http | CheckKind::Https | CheckKind::Tcp)
}

// === impl Target ===

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::{Check, Registration, Timestamp};

    use super::*;
    use crate::Class;

    #[derive(Debug)]
    struct Nobody;

    impl Witness for Nobody {
        fn visited(&self, _: Class, _: Duration) {}
    }

    /// 10,000 targets at 3 KB each must fit, and the largest part of one is the future of its visitor.
    #[tokio::test]
    async fn visitors_are_small() {
        let (observations, _receiver) = mpsc::channel(1);
        let rounds = Rounds::start(Settings::default(), Clock::system(), observations, Arc::new(Nobody));
        let mut registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        registration.check = Check::default();
        let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
        let record = Record::registered(&key, &registration, 1, Timestamp::default());
        let line = Arc::new(Line::new(rounds.0.shared.epoch, &record));
        let mut visitor = Visitor::new(&rounds.0.shared, line, &record, None).unwrap();
        let visits = async move { visitor.run(Duration::ZERO).await };
        let size = size_of_val(&visits);
        assert!(size <= 1_280, "{size} bytes");
    }
}
