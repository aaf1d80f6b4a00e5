//! Events on their way to the history: what a batch does, what the rounds saw, and what the store had no room for.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{Event, EventKind, Namespace, Timestamp, Who};
use roundsman_registry::{Change, Edit, Effect, Health, Key, Record};
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
    rests_until: Option<Instant>,
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
        Self { server: server.into(), waiting: VecDeque::new(), dropped: BTreeMap::new(), rests_until: None }
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
        events.extend(edits.iter().filter_map(|edit| planned(edit, now, &self.server)));
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
        if self.rests_until.is_some_and(|until| now < until) {
            return events;
        }
        self.rests_until = None;
        let writable = |namespace: &Namespace| !left_out(namespace);
        let (marks, kept) =
            std::mem::take(&mut self.dropped).into_iter().partition(|(namespace, _)| writable(namespace));
        self.dropped = kept;
        let marks: BTreeMap<Namespace, Dropped> = marks;
        for (namespace, Dropped { count, last }) in marks {
            let reason = format!("{count} events were dropped: the store did not take them in time").into();
            events.push(Event::cut(Some(namespace), last, reason, Arc::clone(&self.server)));
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
        events
    }

    /// Takes back what the store had no room for, and leaves it in peace for a while.
    pub(crate) fn untold(&mut self, events: Vec<Event>, now: Instant) {
        if !events.is_empty() {
            self.rests_until = Some(now + REST);
            self.put_back(events);
        }
    }

    /// Takes back what the store did not take. It is older than what waits.
    pub(crate) fn put_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            self.waiting.push_front(event);
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
            let dropped = self.dropped.entry(namespace).or_default();
            (dropped.count, dropped.last) = (dropped.count + 1, dropped.last.max(at));
        }
    }
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
        Change::Put(record) => Some(record),
        Change::Remove(_) => None,
    };
    let at = |record: &'a Record| (&record.instance.namespace, &record.instance.name, &record.instance.address);
    changes.iter().filter_map(move |change| {
        let Change::Remove(gone) = change else { return None };
        if asked.contains(&gone.key()) {
            return None;
        }
        let by = changes.iter().filter_map(put).find(|record| at(record) == at(gone))?;
        let reason = format!("replaced by {} at the same address", by.instance.id).into();
        Some(event(gone, EventKind::Replaced, reason, now, server))
    })
}

/// What an edit of a plan does, if anything.
fn planned(edit: &Edit, now: Timestamp, server: &Arc<str>) -> Option<Event> {
    let Edit::Planned { edit, before, after } = edit else { return None };
    let (kind, reason): (_, Arc<str>) = match &**edit {
        Edit::Register { .. } => match before {
            Some(before) if before.incarnation == after.as_ref()?.incarnation => (EventKind::Updated, "updated".into()),
            _ => (EventKind::Registered, "registered".into()),
        },
        Edit::Remove { reason, .. } if &**reason == "deregistered" => (EventKind::Deregistered, Arc::clone(reason)),
        Edit::Remove { reason, .. } => (EventKind::Replaced, Arc::clone(reason)),
        Edit::Drain { on: true, .. } => (EventKind::Drained, "drained by request".into()),
        Edit::Drain { on: false, .. } => (EventKind::Undrained, "drain undone by request".into()),
        Edit::Observe { .. } | Edit::Planned { .. } | Edit::Adopt { .. } => return None,
    };
    let record = after.as_ref().or(before.as_ref())?;
    let mut event = event(record, kind, reason, now, server);
    event.from = before.as_ref().map(|before| before.status());
    event.to = after.as_ref().map(|after| after.status());
    Some(event)
}

/// What the rounds saw, if it is more than another reason for the same.
fn seen(effect: &Effect, now: Timestamp, server: &Arc<str>) -> Option<Event> {
    let before = effect.before.as_ref()?;
    let Some(after) = &effect.after else {
        let mut event = event(before, EventKind::Forgotten, Arc::clone(&effect.reason), now, server);
        event.from = Some(before.status());
        return Some(event);
    };
    let kind = match (before.health, after.health) {
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
mod tests {
    use roundsman_protocol::Registration;
    use roundsman_registry::{Limits, Registry};

    use super::*;

    const NOW: Timestamp = Timestamp::MAX;

    fn registration(id: &str, port: u16) -> Arc<Registration> {
        let address = format!("10.0.0.1:{port}").parse().unwrap();
        let known = Registration::new("product".parse().unwrap(), address);
        Arc::new(Registration { id: Some(id.parse().unwrap()), ..known })
    }

    fn key(id: &str) -> Key {
        Key { namespace: Namespace::default(), id: id.parse().unwrap() }
    }

    /// Plans on the registry, carries it out, and tells what the history will say.
    fn told(registry: &Registry, plan: impl FnOnce(&mut roundsman_registry::Draft<'_>)) -> Vec<(EventKind, String)> {
        let mut draft = registry.draft(Limits::default());
        plan(&mut draft);
        let (edits, changes) = draft.finish();
        let who = |_: &Key| Some(Who { session: Some("7".into()), ..Who::default() });
        let events = Journal::new("server-1").planned(&edits, &changes, NOW, who);
        registry.apply(&edits);
        let known = |event: &Event| event.who.is_some() && &*event.server == "server-1" && event.at == NOW;
        assert!(events.iter().all(known), "{events:?}");
        events.into_iter().map(|event| (event.kind, event.instance.unwrap().to_string())).collect()
    }

    #[test]
    fn what_clients_ask_for_is_told() {
        let (registry, ns) = (Registry::new(1), Namespace::default());
        let register =
            |id, port| told(&registry, |draft| drop(draft.register(&ns, registration(id, port), NOW).unwrap()));
        let one = |kind, id: &str| vec![(kind, id.to_owned())];
        assert_eq!(register("a", 1), one(EventKind::Registered, "a"));
        assert_eq!(register("a", 1), [], "nothing has changed");
        let update = Arc::new(Registration { weight: 7, ..Registration::clone(&registration("a", 1)) });
        let updated = told(&registry, |draft| drop(draft.register(&ns, update, NOW).unwrap()));
        assert_eq!(updated, one(EventKind::Updated, "a"));
        assert_eq!(register("a", 2), one(EventKind::Registered, "a"), "at another address: another life");
        let ghost = register("b", 2);
        assert_eq!(ghost, [(EventKind::Replaced, "a".to_owned()), (EventKind::Registered, "b".to_owned())]);
        let drained = told(&registry, |draft| draft.drain(key("b"), true, NOW).unwrap());
        assert_eq!(drained, one(EventKind::Drained, "b"));
        let undrained = told(&registry, |draft| draft.drain(key("b"), false, NOW).unwrap());
        assert_eq!(undrained, one(EventKind::Undrained, "b"));
        let gone = told(&registry, |draft| draft.deregister(key("b")).unwrap());
        assert_eq!(gone, one(EventKind::Deregistered, "b"));
    }

    #[test]
    fn what_the_rounds_see_is_told_with_its_evidence() {
        let (registry, ns) = (Registry::new(1), Namespace::default());
        told(&registry, |draft| drop(draft.register(&ns, registration("a", 1), NOW).unwrap()));
        let mut journal = Journal::new("server-1");
        let healths = [Health::Passing, Health::Passing, Health::Suspect, Health::Evicted, Health::Passing];
        for (n, health) in healths.into_iter().enumerate() {
            let incarnation = registry.find(&key("a")).unwrap().incarnation;
            let (reason, at) = (format!("visit {n}").into(), Timestamp::from_millis(n as u64));
            journal.observed(&registry.apply(&[Edit::Observe { key: key("a"), incarnation, health, reason, at }]), NOW);
        }
        let forgotten = Edit::Remove { key: key("a"), reason: "probation is over".into() };
        journal.observed(&registry.apply(&[forgotten]), NOW);
        let told =
            journal.take(Instant::now(), |_| false).into_iter().map(|event| (event.kind, event.reason.to_string()));
        let expected = [
            (EventKind::Flip, "visit 0"),
            (EventKind::Flip, "visit 2"),
            (EventKind::Evicted, "visit 3"),
            (EventKind::Reinstated, "visit 4"),
            (EventKind::Forgotten, "probation is over"),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected.map(|(kind, reason)| (kind, reason.to_owned())));
        assert!(journal.is_empty());
    }

    #[test]
    fn while_the_store_is_gone_the_oldest_are_dropped_and_a_mark_says_so() {
        let mut journal = Journal::new("server-1");
        let record = |ns: &str| {
            let key = Key { namespace: ns.parse().unwrap(), id: "a".parse().unwrap() };
            Record::registered(&key, &registration("a", 1), 0, NOW)
        };
        let at = |n: usize| Timestamp::from_millis(n as u64);
        let (shop, default) = (record("shop"), record("default"));
        let flips = (0..MOST + 7)
            .map(|n| event(if n < 3 { &shop } else { &default }, EventKind::Flip, "".into(), at(n), &journal.server));
        let flips: Vec<_> = flips.collect();
        journal.put_back(flips.clone());
        // What cannot be written now stays, and does not stand in the way.
        let first = journal.take(Instant::now(), |namespace| namespace.as_str() == "shop");
        assert_eq!(first.len(), AT_A_TIME);
        assert!(first[0].kind == EventKind::Cut && first[0].reason.starts_with("4 events"), "{:?}", first[0]);
        assert_eq!((first[0].at, &first[1]), (at(6), &flips[7]));
        journal.put_back(first[1..].to_vec());
        let mut rest = journal.take(Instant::now(), |_| false);
        assert!(rest[0].kind == EventKind::Cut && rest[0].namespace.as_ref().unwrap().as_str() == "shop");
        rest.remove(0);
        while !journal.is_empty() {
            rest.extend(journal.take(Instant::now(), |_| false));
        }
        assert_eq!(rest, flips[7..]);
        journal.untold(rest[..1].to_vec(), Instant::now());
        assert_eq!(journal.take(Instant::now(), |_| false), [], "the store is left in peace");
        assert_eq!(journal.take(Instant::now() + REST, |_| false), flips[7..8]);
    }
}
