//! Events on their way to the history: what a batch does, what the rounds saw, and what the store had no room for.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{Event, EventKind, InstanceId, Namespace, Timestamp, Who};
use roundsman_registry::{Change, Edit, Effect, Health, Key, LET_IN, Record};
use tokio::time::Instant;

/// Most events that wait for a store. Of more, the oldest are dropped, and a mark says so.
const MOST: usize = 10_000;
/// Most of them in one commit.
const AT_A_TIME: usize = 4_096;
/// How long a store that had no room for events is not asked again.
const REST: Duration = Duration::from_secs(10);

/// Events that wait for the store, oldest first.
#[derive(Debug)]
pub(crate) struct Journal {
    server: Arc<str>,
    waiting: VecDeque<Event>,
    dropped: BTreeMap<Namespace, Dropped>,
    /// What the marks say that are on their way to the store: should it not take them, they are not lost among the events.
    told: BTreeMap<Namespace, Dropped>,
    /// Namespaces whose events the store had no room for, and until when it is not asked again.
    resting: BTreeMap<Namespace, Instant>,
}

/// What was dropped of one namespace: how many, and when the last of them happened.
#[derive(Debug, Default)]
struct Dropped {
    count: u64,
    last: Timestamp,
}

// === impl Journal ===

impl Journal {
    pub(crate) fn new(server: &str) -> Self {
        let (dropped, told, resting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { server: server.into(), waiting: VecDeque::new(), dropped, told, resting }
    }

    /// Takes in what was observed, and is visible already.
    pub(crate) fn observed(&mut self, effects: &[Effect], now: Timestamp) {
        for effect in effects {
            let event = seen(effect, now, &self.server);
            self.waiting.extend(event);
        }
        self.forget();
    }

    /// What a batch does once it is committed. `who` asked for the change of a record.
    pub(crate) fn planned(
        &self,
        edits: &[Edit],
        changes: &[Change],
        now: Timestamp,
        who: impl Fn(&Key) -> Option<Who>,
    ) -> Vec<Event> {
        let mut events: Vec<Event> = replaced(edits, changes, now, &self.server).collect();
        let gone = events.len();
        events.extend(edits.iter().filter_map(|edit| planned(edit, now, &self.server)));
        name_replaced(&mut events, gone);
        for event in &mut events {
            if let (Some(namespace), Some(id)) = (&event.namespace, &event.instance) {
                event.who = who(&Key { namespace: namespace.clone(), id: id.clone() });
            }
        }
        events
    }

    /// The next ones to write, with marks of those that were dropped. `left_out`: namespaces that cannot be written.
    pub(crate) fn take(&mut self, now: Instant, left_out: impl Fn(&Namespace) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        self.resting.retain(|_, until| now < *until);
        let resting = std::mem::take(&mut self.resting);
        let writable = |namespace: &Namespace| !left_out(namespace) && !resting.contains_key(namespace);
        let (marks, kept) =
            std::mem::take(&mut self.dropped).into_iter().partition(|(namespace, _)| writable(namespace));
        self.dropped = kept;
        // There is one commit at a time: what an earlier one told has arrived, or was put back.
        self.told = marks;
        for (namespace, Dropped { count, last }) in &self.told {
            let reason = format!("{count} events were dropped: the store did not take them in time").into();
            events.push(Event::cut(Some(namespace.clone()), *last, reason, Arc::clone(&self.server)));
        }
        let mut staying = VecDeque::new();
        while let Some(event) = self.waiting.pop_front() {
            if events.len() >= AT_A_TIME {
                staying.push_back(event);
                break;
            }
            if event.namespace.as_ref().is_none_or(writable) {
                events.push(event);
            } else {
                staying.push_back(event);
            }
        }
        staying.append(&mut self.waiting);
        self.waiting = staying;
        self.resting = resting;
        events
    }

    /// The store lost its history: a mark in each of these namespaces says so.
    pub(crate) fn lost(&mut self, namespaces: BTreeSet<Namespace>, now: Timestamp) {
        let reason: Arc<str> = "the store came back without its contents; what happened before is lost".into();
        let mark = |namespace| Event::cut(Some(namespace), now, Arc::clone(&reason), Arc::clone(&self.server));
        let marks: Vec<Event> = namespaces.into_iter().map(mark).collect();
        self.waiting.extend(marks);
        self.forget();
    }

    /// Takes back what the store had no room for, and leaves it in peace for a while, as far as these namespaces go.
    pub(crate) fn untold(&mut self, events: Vec<Event>, now: Instant) {
        let namespaces = events.iter().filter_map(|event| event.namespace.clone());
        self.resting.extend(namespaces.map(|namespace| (namespace, now + REST)));
        self.put_back(events);
    }

    /// There is room again, or no time to wait for it: the store is asked at once.
    pub(crate) fn try_again(&mut self) {
        self.resting.clear();
    }

    /// How many events wait for the store.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes back what the store did not take. It is older than what waits.
    pub(crate) fn put_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            let is_told = |namespace: &&Namespace| self.told.get(*namespace).is_some_and(|mark| mark.last == event.at);
            let told = event.namespace.as_ref().filter(|_| event.kind == EventKind::Cut).filter(is_told);
            match told.and_then(|namespace| self.told.remove_entry(namespace)) {
                Some((namespace, mark)) => self.dropped.entry(namespace).or_default().add(&mark),
                None => self.waiting.push_front(event),
            }
        }
        self.forget();
    }

    /// Whether nothing waits.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped.is_empty()
    }

    fn forget(&mut self) {
        while self.waiting.len() > MOST {
            let Some(Event { namespace: Some(namespace), at, .. }) = self.waiting.pop_front() else { continue };
            self.dropped.entry(namespace).or_default().add(&Dropped { count: 1, last: at });
        }
    }
}

// === impl Dropped ===

impl Dropped {
    fn add(&mut self, other: &Self) {
        (self.count, self.last) = (self.count + other.count, self.last.max(other.last));
    }
}

/// Has registrations say whom they drove from their address. The events of those who left by themselves at the loss of it
/// are the first ones, up to `gone`; others left with an edit of their own.
fn name_replaced(events: &mut [Event], gone: usize) {
    let left: Vec<(Key, Arc<str>)> = events
        .iter()
        .enumerate()
        .filter(|(nth, event)| *nth < gone || event.kind == EventKind::Replaced)
        .filter_map(|(_, event)| {
            Some((Key { namespace: event.namespace.clone()?, id: event.instance.clone()? }, Arc::clone(&event.reason)))
        })
        .collect();
    if left.is_empty() {
        return;
    }
    for event in events.iter_mut().filter(|event| event.kind == EventKind::Registered) {
        let Some(id) = &event.instance else { continue };
        let by = replaced_by(id);
        let replaced =
            left.iter().filter(|(key, why)| Some(&key.namespace) == event.namespace.as_ref() && **why == *by);
        let replaced: Vec<&str> = replaced.map(|(key, _)| key.id.as_str()).collect();
        if !replaced.is_empty() {
            event.reason = format!("{}, replaced {}", event.reason, replaced.join(", ")).into();
        }
    }
}

fn replaced_by(id: &InstanceId) -> String {
    format!("replaced by {id} at the same address")
}

/// Those whom a registration drove from their address.
fn replaced<'a>(
    edits: &'a [Edit],
    changes: &'a [Change],
    now: Timestamp,
    server: &'a Arc<str>,
) -> impl Iterator<Item = Event> + 'a {
    let asked: HashSet<Key> = edits.iter().map(Edit::key).collect();
    let put = |change: &'a Change| match change {
        Change::Asked { record, .. } => Some(record),
        Change::Observed(_) | Change::Removed { .. } | Change::Forgotten { .. } => None,
    };
    let at = |record: &'a Record| (&record.instance.namespace, &record.instance.name, &record.instance.address);
    changes.iter().filter_map(move |change| {
        let Change::Removed { record: gone, .. } = change else { return None };
        if asked.contains(&gone.key()) {
            return None;
        }
        let by = changes.iter().filter_map(put).find(|record| at(record) == at(gone))?;
        let reason = replaced_by(&by.instance.id).into();
        Some(event(gone, EventKind::Replaced, reason, now, server))
    })
}

/// What an edit of a plan does, if anything.
fn planned(edit: &Edit, now: Timestamp, server: &Arc<str>) -> Option<Event> {
    let Edit::Planned { edit, before, after } = edit else { return None };
    let (kind, reason): (_, Arc<str>) = match &**edit {
        Edit::Register { .. } => match before {
            Some(before) if before.is_same_life(after.as_ref()?) => {
                (EventKind::Updated, updated(before, after.as_ref()?))
            }
            _ => (EventKind::Registered, format!("registered at {}", after.as_ref()?.instance.address).into()),
        },
        Edit::Update { .. } => (EventKind::Updated, updated(before.as_ref()?, after.as_ref()?)),
        Edit::Block { .. } => {
            let reason = &after.as_ref()?.instance.reason;
            (EventKind::Deregistered, format!("deregistered, and {reason}").into())
        }
        Edit::Remove { reason, .. } if ["deregistered", LET_IN].contains(&&**reason) => {
            (EventKind::Deregistered, Arc::clone(reason))
        }
        Edit::Remove { reason, .. } => (EventKind::Replaced, Arc::clone(reason)),
        Edit::Drain { on: true, .. } => (EventKind::Drained, "drained by request".into()),
        Edit::Drain { on: false, .. } => (EventKind::Undrained, "drain undone by request".into()),
        Edit::Observe { .. } | Edit::Forget { .. } | Edit::Planned { .. } | Edit::Adopt { .. } | Edit::Bury(_) => {
            return None;
        }
    };
    let record = after.as_ref().or(before.as_ref())?;
    let mut event = event(record, kind, reason, now, server);
    event.from = before.as_ref().map(|before| before.status());
    event.to = after.as_ref().map(|after| after.status());
    Some(event)
}

/// What was changed by it.
fn updated(before: &Record, after: &Record) -> Arc<str> {
    match before.instance.differences(&after.instance) {
        // What is not shown to people may differ all the same.
        none if none.is_empty() => "updated".into(),
        differences => format!("updated: {}", differences.join(", ")).into(),
    }
}

/// What the rounds saw, if it is more than another reason for the same.
fn seen(effect: &Effect, now: Timestamp, server: &Arc<str>) -> Option<Event> {
    let before = effect.before.as_ref()?;
    let Some(after) = &effect.after else {
        let mut event = event(before, EventKind::Forgotten, Arc::clone(&effect.reason), now, server);
        event.from = Some(before.status());
        return Some(event);
    };
    let kind = match (before.observed.health, after.observed.health) {
        (Health::Evicted, Health::Evicted) => return None,
        (Health::Evicted, _) => EventKind::Reinstated,
        (_, Health::Evicted) => EventKind::Evicted,
        _ if before.status() == after.status() => return None,
        _ => EventKind::Flip,
    };
    let mut event = event(after, kind, Arc::clone(&effect.reason), after.instance.since, server);
    (event.from, event.to) = (Some(before.status()), Some(after.status()));
    Some(event)
}

fn event(record: &Record, kind: EventKind, reason: Arc<str>, at: Timestamp, server: &Arc<str>) -> Event {
    Event {
        namespace: Some(record.instance.namespace.clone()),
        service: Some(record.instance.name.clone()),
        instance: Some(record.instance.id.clone()),
        at,
        kind,
        from: None,
        to: None,
        reason,
        who: None,
        server: Arc::clone(server),
    }
}

#[cfg(test)]
mod tests;
