//! One batch: requests planned together, committed together, answered together.

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::{DiscoveryError, Event, InstanceId, Namespace, Patched, Registered, Registration, Timestamp};
use roundsman_registry::{Change, Draft, Edit, Key, Registry};

use super::{Request, key, unwritten::Unwritten};
use crate::principal::Principal;

/// Requests on their way to the store.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) edits: Vec<Edit>,
    pub(crate) changes: Vec<Change>,
    /// What the store has to be told besides, and rides along.
    pub(crate) due: Unwritten,
    /// Who asked for the changes of which record. What was observed, nobody asked for.
    by: HashMap<Key, Arc<Principal>>,
    /// What the history will say of the changes, once they are committed.
    pub(crate) planned: Vec<Event>,
    /// What happened already and rides along.
    pub(crate) seen: Vec<Event>,
    answers: Vec<Answer>,
}

/// A request, and what it is answered once its batch is committed.
#[derive(Debug)]
struct Answer {
    request: Request,
    done: Done,
}

/// What came out of a request.
#[derive(Debug)]
enum Done {
    Registered(Registered),
    Patched(Box<Patched>),
    /// What there is to say of it was known before.
    Else,
}

// === impl Batch ===

impl Batch {
    /// Plans requests and what was observed. Requests that the registry refuses are answered at once.
    pub(crate) fn plan(
        registry: &Registry,
        mut draft: Draft<'_>,
        requests: &mut Vec<Request>,
        due: Unwritten,
        now: Timestamp,
    ) -> Self {
        let mut by = HashMap::new();
        let answers = requests.drain(..).filter_map(|request| answer(&mut draft, request, &mut by, now)).collect();
        let (edits, changes) = draft.finish(now);
        let changes = due.around(changes, registry, now);
        Self { edits, changes, due, by, answers, ..Self::default() }
    }

    /// Who asked for the change of a record, if anybody did.
    pub(crate) fn by(&self, key: &Key) -> Option<&Arc<Principal>> {
        self.by.get(key)
    }

    /// The batch is committed and visible.
    pub(crate) fn answer(self) {
        for Answer { request, done } in self.answers {
            // Whoever asked may have hung up meanwhile; the change stands all the same.
            match (request, done) {
                (Request::Register { reply, .. }, Done::Registered(registered)) => drop(reply.send(Ok(registered))),
                (Request::Update { reply, .. }, Done::Patched(patched)) => drop(reply.send(Ok(*patched))),
                (Request::Dismiss { reply, known, .. }, _) => drop(reply.send(Ok(known))),
                (Request::Deregister { reply, .. } | Request::Drain { reply, .. }, _) => drop(reply.send(Ok(()))),
                // Nothing else comes out of these once they are planned.
                (Request::Register { .. } | Request::Update { .. }, _) => {}
            }
        }
    }

    /// Takes out the part that is about one namespace.
    pub(crate) fn split_off(&mut self, namespace: &Namespace) -> Self {
        let told = |event: &mut Event| event.namespace.as_ref() == Some(namespace);
        Self {
            edits: self.edits.extract_if(.., |edit| edit.key().namespace == *namespace).collect(),
            changes: self.changes.extract_if(.., |change| change.record().instance.namespace == *namespace).collect(),
            due: self.due.take(|key| key.namespace == *namespace),
            planned: self.planned.extract_if(.., told).collect(),
            seen: self.seen.extract_if(.., told).collect(),
            by: self.by.extract_if(|key, _| key.namespace == *namespace).collect(),
            answers: self.answers.extract_if(.., |answer| answer.request.namespace() == namespace).collect(),
        }
    }

    /// The events as a store gets them: what is seen came first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.seen.iter().chain(&self.planned).cloned().collect()
    }

    /// The batch was not committed. Gives back what rode along, to be written later.
    pub(crate) fn refuse(self, error: &DiscoveryError) -> Unwritten {
        self.answers.into_iter().for_each(|answer| answer.request.refuse(error.clone()));
        self.due
    }

    /// The batch was not committed. Gives back what was asked for, to be planned anew, and what rode along.
    pub(crate) fn reopen(self) -> (Vec<Request>, Unwritten) {
        (self.answers.into_iter().map(|answer| answer.request).collect(), self.due)
    }

    /// The batch was not committed for want of room. Refuses what makes the store grow; gives back what does not,
    /// to be planned anew, and what rode along.
    pub(crate) fn split(self, error: &DiscoveryError) -> (Vec<Request>, Unwritten) {
        let (requests, due) = self.reopen();
        let (growing, others) = requests.into_iter().partition::<Vec<_>, _>(Request::grows);
        growing.into_iter().for_each(|request| request.refuse(error.clone()));
        (others, due)
    }
}

fn answer(
    draft: &mut Draft<'_>,
    request: Request,
    by_key: &mut HashMap<Key, Arc<Principal>>,
    now: Timestamp,
) -> Option<Answer> {
    let planned = match &request {
        Request::Register { namespace, registration, twins, by, .. } => {
            register(draft, namespace, registration, twins, now).map(|registered| {
                for id in registered.replaced.iter().chain([&registered.id]) {
                    by_key.insert(key(namespace, id.clone()), Arc::clone(by));
                }
                Done::Registered(registered)
            })
        }
        Request::Deregister { key, .. } => draft.deregister(key.clone(), now).map(|()| Done::Else),
        Request::Dismiss { key, block, by, .. } => match block {
            Some(until) => draft.block(key.clone(), *until, &by.name().into(), now),
            None => draft.dismiss(key.clone(), now),
        }
        .map(|()| Done::Else),
        Request::Drain { key, on, operator: true, .. } => draft.hold(key.clone(), *on, now).map(|()| Done::Else),
        Request::Drain { key, on, operator: false, .. } => draft.drain(key.clone(), *on, now).map(|()| Done::Else),
        Request::Update { key, patch, .. } => {
            draft.update(key.clone(), patch, now).map(|patched| Done::Patched(Box::new(patched)))
        }
    };
    match planned {
        Ok(done) => {
            if let Some((key, by)) = request.about() {
                by_key.insert(key.clone(), Arc::clone(by));
            }
            Some(Answer { request, done })
        }
        Err(error) => {
            request.refuse(error);
            None
        }
    }
}

/// Plans a registration, and that those leave who name the same place in another way.
fn register(
    draft: &mut Draft<'_>,
    namespace: &Namespace,
    registration: &Arc<Registration>,
    twins: &[InstanceId],
    now: Timestamp,
) -> Result<Registered, DiscoveryError> {
    if let (true, Some(id)) = (registration.again, &registration.id)
        && let Some(by) = twins.iter().find(|twin| *twin != id && draft.is_live(namespace, twin))
    {
        return Err(DiscoveryError::Replaced { id: id.clone(), by: by.clone() });
    }
    let mut registered = draft.register(namespace, Arc::clone(registration), now)?;
    for twin in twins {
        if draft.replace(key(namespace, twin.clone()), &registered.id, now) {
            registered.replaced.push(twin.clone());
        }
    }
    Ok(registered)
}
