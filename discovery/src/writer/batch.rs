//! One batch: requests planned together, committed together, answered together.

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::{DiscoveryError, Event, Namespace, Registered, Timestamp};
use roundsman_registry::{Change, Draft, Edit, Key, Record, Registry};

use super::{Reply, Request, key};
use crate::principal::Principal;

/// Records whose observed state the store does not have yet, as last known.
pub(crate) type Unwritten = HashMap<Key, Arc<Record>>;

/// Requests on their way to the store.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) edits: Vec<Edit>,
    pub(crate) changes: Vec<Change>,
    /// What was observed and rides along.
    pub(crate) observed: Unwritten,
    /// Who asked for the changes of which record. What was observed, nobody asked for.
    by: HashMap<Key, Arc<Principal>>,
    /// What the history will say of the changes, once they are committed.
    pub(crate) planned: Vec<Event>,
    /// What happened already and rides along.
    pub(crate) seen: Vec<Event>,
    answers: Vec<Answer>,
}

/// What a request is answered once its batch is committed.
#[derive(Debug)]
enum Answer {
    Registered(Reply<Registered>, Registered, Namespace),
    Removed(Reply<()>, Key, Arc<Principal>),
    Drained(Reply<()>, Key, bool, Arc<Principal>),
}

// === impl Batch ===

impl Batch {
    /// Plans requests and what was observed. Requests that the registry refuses are answered at once.
    pub(crate) fn plan(
        registry: &Registry,
        mut draft: Draft<'_>,
        requests: &mut Vec<Request>,
        observed: Unwritten,
        now: Timestamp,
    ) -> Self {
        let mut by = HashMap::new();
        let answers = requests.drain(..).filter_map(|request| answer(&mut draft, request, &mut by, now)).collect();
        let (edits, mut changes) = draft.finish();
        let touched: std::collections::HashSet<Key> = changes.iter().map(Change::key).collect();
        for (key, last) in &observed {
            if !touched.contains(key) {
                changes.push(match registry.find(key) {
                    Some(record) => Change::Put(record),
                    None => Change::Remove(Arc::clone(last)),
                });
            }
        }
        Self { edits, changes, observed, by, answers, ..Self::default() }
    }

    /// Who asked for the change of a record, if anybody did.
    pub(crate) fn by(&self, key: &Key) -> Option<&Arc<Principal>> {
        self.by.get(key)
    }

    /// The batch is committed and visible.
    pub(crate) fn answer(self) {
        for answer in self.answers {
            // Whoever asked may have hung up meanwhile; the change stands all the same.
            match answer {
                Answer::Registered(reply, registered, _) => drop(reply.send(Ok(registered))),
                Answer::Removed(reply, ..) | Answer::Drained(reply, ..) => drop(reply.send(Ok(()))),
            }
        }
    }

    /// Takes out the part that is about one namespace.
    pub(crate) fn split_off(&mut self, namespace: &Namespace) -> Self {
        let told = |event: &mut Event| event.namespace.as_ref() == Some(namespace);
        Self {
            edits: self.edits.extract_if(.., |edit| edit.key().namespace == *namespace).collect(),
            changes: self.changes.extract_if(.., |change| change.key().namespace == *namespace).collect(),
            observed: self.observed.extract_if(|key, _| key.namespace == *namespace).collect(),
            planned: self.planned.extract_if(.., told).collect(),
            seen: self.seen.extract_if(.., told).collect(),
            by: self.by.extract_if(|key, _| key.namespace == *namespace).collect(),
            answers: self.answers.extract_if(.., |answer| answer.namespace() == namespace).collect(),
        }
    }

    /// The events as a store gets them: what is seen came first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.seen.iter().chain(&self.planned).cloned().collect()
    }

    /// The batch was not committed. Gives back what was observed, to be written later.
    pub(crate) fn refuse(self, error: &DiscoveryError) -> Unwritten {
        for answer in self.answers {
            match answer {
                Answer::Registered(reply, ..) => drop(reply.send(Err(error.clone()))),
                Answer::Removed(reply, ..) | Answer::Drained(reply, ..) => drop(reply.send(Err(error.clone()))),
            }
        }
        self.observed
    }

    /// The batch was not committed for want of room. Refuses what makes the store grow; gives back what does not,
    /// to be planned anew, and what was observed.
    pub(crate) fn split(self, error: &DiscoveryError) -> (Vec<Request>, Unwritten) {
        let mut requests = Vec::new();
        for answer in self.answers {
            match answer {
                Answer::Registered(reply, ..) => drop(reply.send(Err(error.clone()))),
                Answer::Removed(reply, key, by) => requests.push(Request::Deregister { key, by, reply }),
                Answer::Drained(reply, key, on, by) => requests.push(Request::Drain { key, on, by, reply }),
            }
        }
        (requests, self.observed)
    }
}

// === impl Answer ===

impl Answer {
    fn namespace(&self) -> &Namespace {
        match self {
            Self::Registered(.., namespace) => namespace,
            Self::Removed(_, key, _) | Self::Drained(_, key, ..) => &key.namespace,
        }
    }
}

fn answer(
    draft: &mut Draft<'_>,
    request: Request,
    by_key: &mut HashMap<Key, Arc<Principal>>,
    now: Timestamp,
) -> Option<Answer> {
    match request {
        Request::Register { namespace, registration, twins, by, reply } => {
            match draft.register(&namespace, registration, now) {
                Ok(registered) => {
                    for twin in twins {
                        by_key.insert(key(&namespace, twin.clone()), Arc::clone(&by));
                        draft.replace(key(&namespace, twin), &registered.id);
                    }
                    by_key.insert(key(&namespace, registered.id.clone()), by);
                    Some(Answer::Registered(reply, registered, namespace))
                }
                Err(error) => {
                    drop(reply.send(Err(error)));
                    None
                }
            }
        }
        Request::Deregister { key, by, reply } => done(draft.deregister(key.clone()), reply, |reply| {
            by_key.insert(key.clone(), Arc::clone(&by));
            Answer::Removed(reply, key, by)
        }),
        Request::Drain { key, on, by, reply } => done(draft.drain(key.clone(), on, now), reply, |reply| {
            by_key.insert(key.clone(), Arc::clone(&by));
            Answer::Drained(reply, key, on, by)
        }),
    }
}

fn done(
    planned: Result<(), DiscoveryError>,
    reply: Reply<()>,
    answer: impl FnOnce(Reply<()>) -> Answer,
) -> Option<Answer> {
    match planned {
        Ok(()) => Some(answer(reply)),
        Err(error) => {
            drop(reply.send(Err(error)));
            None
        }
    }
}
