//! What each method does.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::FutureExt;
use roundsman_health::Nudge;
use roundsman_protocol::{
    Bookmark, CheckKind, Dialect, DiscoveryError, DiscoveryRequest, DiscoveryResponse, InstanceId, Namespace, Page,
    Query, Registration, Trouble, wire::Answer,
};
use roundsman_registry::{Health, Snapshot};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Done, Kind, Later},
    encoded::{Form, Question},
    frame::{Outgoing, frame, put},
    twins,
};
use crate::{context::Context, edges::Tracker, memory::kept, status, writer::key};

/// Answers of no more instances, and about no more bytes, are put together at once.
const FEW: usize = 64;
const SHORT: usize = 16 * 1_024;
/// How many long answers of a connection are in the making at a time: the others wait for their turn here, where they
/// are in nobody's way.
const AT_A_TIME: usize = 4;

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) context: Arc<Context>,
    pub(super) namespace: Namespace,
    pub(super) dialect: Dialect,
    /// One permit for each long answer in the making.
    turns: Arc<Semaphore>,
}

/// An answer, or a call that has to wait for one.
pub(super) enum Answered {
    Now(Outgoing),
    Later(Later),
}

impl Caller {
    pub(super) fn new(context: Arc<Context>, namespace: Namespace, dialect: Dialect) -> Self {
        Self { context, namespace, dialect, turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Answers what needs no waiting and little work; everything else becomes a future. `tracker` counts it, when the
    /// caller has a name.
    pub(super) fn call(&self, id: u64, request: DiscoveryRequest, tracker: Option<&mut Tracker>) -> Answered {
        let began = Instant::now();
        let (method, outgoing) = match request {
            DiscoveryRequest::Get { service } => {
                if let Some(tracker) = tracker {
                    tracker.looked_up(&service);
                }
                let got = self.context.registry.get(&self.namespace, &service);
                let outgoing = match got {
                    Ok(record) => Outgoing::Got { id, record },
                    Err(error) => self.answer(id, DiscoveryResponse::Get(Err(error))),
                };
                (4, outgoing)
            }
            DiscoveryRequest::Renew { id: instance } => {
                (2, self.answer(id, DiscoveryResponse::Renew(self.renew(&instance))))
            }
            DiscoveryRequest::Report { id: instance, trouble } => {
                (8, self.answer(id, DiscoveryResponse::Report(self.report(&instance, trouble))))
            }
            DiscoveryRequest::List { query, after } => return self.list(id, query, after, tracker),
            DiscoveryRequest::Services {} if self.context.registry.services_of(&self.namespace) <= FEW => {
                let services = self.context.registry.services(&self.namespace);
                (6, self.answer(id, DiscoveryResponse::Services(Ok(services))))
            }
            DiscoveryRequest::Services {} => {
                return self.large(id, 6, |caller| {
                    DiscoveryResponse::Services(Ok(caller.context.registry.services(&caller.namespace)))
                });
            }
            DiscoveryRequest::Status {} => {
                return self.large(id, 9, |caller| {
                    DiscoveryResponse::Status(Ok(status::status(&caller.context, Some(&caller.namespace))))
                });
            }
            DiscoveryRequest::Graph {} => {
                return self.large(id, 10, |caller| {
                    DiscoveryResponse::Graph(Ok(status::graph(&caller.context, &caller.namespace)))
                });
            }
            DiscoveryRequest::Register { registration } => {
                return self.later(id, 0, |caller| caller.register(registration));
            }
            DiscoveryRequest::Deregister { id: instance } => {
                return self.later(id, 1, |caller| caller.deregister(instance));
            }
            DiscoveryRequest::Drain { id: instance, on } => {
                return self.later(id, 3, move |caller| caller.drain(instance, on));
            }
            DiscoveryRequest::Watch { query, after, wait, known, page } => {
                let checked = known.map_or(Ok(()), |known| known.validate()).and_then(|()| no_page("page", page));
                if let Err(invalid) = checked {
                    (7, self.answer(id, DiscoveryResponse::Watch(Err(invalid.into()))))
                } else {
                    return self.watch(id, query, after, wait, tracker);
                }
            }
        };
        self.context.meters.called(method, began.elapsed());
        Answered::Now(outgoing)
    }

    pub(super) fn answer(&self, id: u64, response: DiscoveryResponse) -> Outgoing {
        self.count_refusal(&response);
        Outgoing::Answer { id, message: Box::new(Ok(response)) }
    }

    fn renew(&self, instance: &InstanceId) -> Result<(), DiscoveryError> {
        let key = key(&self.namespace, instance.clone());
        let live = self.context.registry.find(&key).filter(|record| record.health != Health::Evicted);
        // Only those that have to call in are known to the rounds by their calls.
        let called =
            live.is_some_and(|record| record.instance.check.kind != CheckKind::Ttl || self.context.rounds.renew(&key));
        if called { Ok(()) } else { Err(DiscoveryError::NotRegistered { id: instance.clone() }) }
    }

    fn report(&self, instance: &InstanceId, trouble: Trouble) -> Result<(), DiscoveryError> {
        let key = key(&self.namespace, instance.clone());
        if self.context.registry.find(&key).is_none_or(|record| record.health == Health::Evicted) {
            return Err(DiscoveryError::NotRegistered { id: instance.clone() });
        }
        self.context.rounds.nudge(&key, Nudge::Reported(trouble));
        Ok(())
    }

    fn list(&self, id: u64, query: Query, after: Option<Bookmark>, tracker: Option<&mut Tracker>) -> Answered {
        let began = Instant::now();
        let refused = |error| Answered::Now(self.answer(id, DiscoveryResponse::List(Err(error))));
        if let Err(invalid) = query.validate().and_then(|()| no_page("after", after)) {
            return refused(invalid.into());
        }
        let query = query.canonical();
        if let Some(tracker) = tracker {
            tracker.listed(&query.services);
        }
        // Asked for one service that nobody ever registered, "none" would hide a mistyped name.
        if let [service] = query.services.as_slice()
            && !self.context.registry.has_service(&self.namespace, service)
        {
            return refused(DiscoveryError::NoSuchService { service: service.clone() });
        }
        let snapshot = self.context.registry.snapshot(&self.namespace, &query);
        if is_small(&snapshot) {
            let page = Page { cursor: snapshot.cursor(), instances: snapshot.matching(&query).collect(), next: None };
            self.context.meters.called(5, began.elapsed());
            return Answered::Now(self.answer(id, DiscoveryResponse::List(Ok(page))));
        }
        let caller = self.clone();
        Answered::Later(Later {
            kind: Kind::Work,
            call: Box::new(move |_stop| {
                async move {
                    let outgoing = caller.encoded(id, Form::List, query, snapshot).await;
                    caller.context.meters.called(5, began.elapsed());
                    done(outgoing)
                }
                .boxed()
            }),
        })
    }

    /// A long answer, encoded once for all who ask for it now.
    pub(super) async fn encoded(&self, id: u64, form: Form, query: Query, snapshot: Snapshot) -> Outgoing {
        let question = Question { namespace: self.namespace.clone(), query, dialect: self.dialect, form };
        // It is never closed.
        let _turn = self.turns.acquire().await;
        match self.context.encodings.answer(question, snapshot).await {
            Ok(encoded) => Outgoing::Shared { id, encoded },
            Err(error) => self.answer(
                id,
                match form {
                    Form::List => DiscoveryResponse::List(Err(error)),
                    Form::Watch => DiscoveryResponse::Watch(Err(error)),
                },
            ),
        }
    }

    /// A call that only reads, but a lot.
    fn large(
        &self,
        id: u64,
        method: usize,
        make: impl FnOnce(&Self) -> DiscoveryResponse + Send + 'static,
    ) -> Answered {
        let (caller, began) = (self.clone(), Instant::now());
        Answered::Later(Later {
            kind: Kind::Work,
            call: Box::new(move |_stop| {
                async move {
                    let outgoing = caller.framed(id, make).await;
                    caller.context.meters.called(method, began.elapsed());
                    done(outgoing)
                }
                .boxed()
            }),
        })
    }

    /// Makes and encodes an answer where nobody else waits for it.
    pub(super) async fn framed(
        &self,
        id: u64,
        make: impl FnOnce(&Self) -> DiscoveryResponse + Send + 'static,
    ) -> Outgoing {
        let caller = self.clone();
        let _turn = self.turns.acquire().await;
        let made = self.context.encodings.offload().run(move || {
            let response = make(&caller);
            caller.count_refusal(&response);
            caller.accounted(&Answer::new(caller.dialect.version, id, &Ok(response)))
        });
        match made.await.and_then(|frame| frame) {
            Ok(frame) => Outgoing::Framed(frame),
            Err(error) => Outgoing::refusal(id, std::io::ErrorKind::ResourceBusy, error.to_string()),
        }
    }

    /// The frame of an answer; a long one is accounted for until it is read.
    fn accounted(&self, response: &Answer<'_>) -> Result<Bytes, DiscoveryError> {
        let mut out = Vec::new();
        if let Err(error) = frame(&mut out, |out| put(self.dialect.codec, out, response)) {
            tracing::error!(%error, "an answer could not be written");
            return Err(DiscoveryError::ShuttingDown);
        }
        if out.len() <= SHORT {
            return Ok(out.into());
        }
        out.shrink_to_fit();
        let reservation = self.context.budget.reserve(&self.namespace, out.len())?;
        Ok(kept(out, &Arc::new(reservation)))
    }

    async fn register(self, mut registration: Registration) -> (DiscoveryResponse, Option<InstanceId>) {
        let config = &self.context.config;
        let checked = registration.validate().and_then(|()| self.permitted(&registration));
        let check = std::mem::take(&mut registration.check);
        match checked.and_then(|()| check.or_defaults(config.interval, config.timeout)) {
            Ok(check) => registration.check = check,
            Err(invalid) => return (DiscoveryResponse::Register(Err(invalid.into())), None),
        }
        registration.name = self.context.registry.shared_name(&self.namespace, registration.name);
        let twins = twins::of(&self.context, &self.namespace, &registration).await;
        let result = self.context.writer.register(self.namespace.clone(), registration, twins).await;
        let id = result.as_ref().ok().map(|registered| registered.id.clone());
        (DiscoveryResponse::Register(result), id)
    }

    /// Whether the rounds may visit the address at all. A host name is checked when it is resolved.
    fn permitted(&self, registration: &Registration) -> Result<(), roundsman_protocol::Invalid> {
        let Some(addr) = registration.address.socket_addr() else { return Ok(()) };
        let permitted = self.context.targets.permits(addr.ip());
        permitted.map_err(|why| roundsman_protocol::Invalid::new("address", why))
    }

    async fn deregister(self, id: InstanceId) -> (DiscoveryResponse, Option<InstanceId>) {
        let result = self.context.writer.deregister(key(&self.namespace, id.clone())).await;
        (DiscoveryResponse::Deregister(result), Some(id))
    }

    async fn drain(self, id: InstanceId, on: bool) -> (DiscoveryResponse, Option<InstanceId>) {
        (DiscoveryResponse::Drain(self.context.writer.drain(key(&self.namespace, id), on).await), None)
    }

    /// A call that goes through the writer.
    fn later<F>(&self, id: u64, method: usize, call: impl FnOnce(Self) -> F + Send + 'static) -> Answered
    where
        F: Future<Output = (DiscoveryResponse, Option<InstanceId>)> + Send + 'static,
    {
        let (caller, began) = (self.clone(), Instant::now());
        let call = move |_stop: CancellationToken| {
            async move {
                let (response, instance) = call(caller.clone()).await;
                caller.context.meters.called(method, began.elapsed());
                let registered = matches!(response, DiscoveryResponse::Register(_));
                let done = done(caller.answer(id, response));
                if registered { Done { registered: instance, ..done } } else { Done { deregistered: instance, ..done } }
            }
            .boxed()
        };
        Answered::Later(Later { kind: Kind::Change, call: Box::new(call) })
    }

    fn count_refusal(&self, response: &DiscoveryResponse) {
        let error = match response {
            DiscoveryResponse::Register(Err(error)) => error,
            DiscoveryResponse::Deregister(Err(error)) | DiscoveryResponse::Renew(Err(error)) => error,
            DiscoveryResponse::Drain(Err(error)) | DiscoveryResponse::Report(Err(error)) => error,
            DiscoveryResponse::Get(Err(error)) => error,
            DiscoveryResponse::List(Err(error)) => error,
            DiscoveryResponse::Watch(Err(error)) => error,
            _ => return,
        };
        self.context.meters.refused(match error {
            DiscoveryError::Invalid(_) => "invalid",
            DiscoveryError::NoSuchService { .. } => "no-such-service",
            DiscoveryError::NonePassing { .. } => "none-passing",
            DiscoveryError::NotRegistered { .. } => "not-registered",
            DiscoveryError::StoreUnavailable { .. } => "store-unavailable",
            DiscoveryError::LimitReached { .. } => "limit-reached",
            DiscoveryError::ShuttingDown => "shutting-down",
        });
    }
}

/// Every answer is one page: a bookmark is that of another server.
fn no_page(field: &str, bookmark: Option<Bookmark>) -> Result<(), roundsman_protocol::Invalid> {
    let rule = "this server gave out no such bookmark; begin anew without one";
    bookmark.map_or(Ok(()), |_| Err(roundsman_protocol::Invalid::new(field, rule)))
}

/// Whether an answer from this snapshot is put together in a moment.
pub(super) fn is_small(snapshot: &Snapshot) -> bool {
    snapshot.len() <= FEW && snapshot.bytes() <= SHORT
}

pub(super) fn done(outgoing: Outgoing) -> Done {
    Done { outgoing: Some(outgoing), registered: None, deregistered: None }
}

#[cfg(test)]
mod tests {
    use crate::metrics::METHODS;

    #[test]
    fn methods_are_counted_under_their_names() {
        for (method, name) in [
            (0, "register"),
            (1, "deregister"),
            (2, "renew"),
            (3, "drain"),
            (4, "get"),
            (5, "list"),
            (6, "services"),
            (7, "watch"),
            (8, "report"),
            (9, "status"),
            (10, "graph"),
        ] {
            assert_eq!(METHODS[method], name);
        }
    }
}
