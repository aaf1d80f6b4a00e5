//! What each method does.

use std::{sync::Arc, time::Duration};

use futures::future::FutureExt;
use roundsman_health::Nudge;
use roundsman_protocol::{
    CheckKind, Cursor, DiscoveryError, DiscoveryRequest, DiscoveryResponse, InstanceId, Namespace, Query, Registration,
    Trouble, Update, limits, rpc::Wait,
};
use roundsman_registry::Health;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Done, Later},
    frame::Outgoing,
};
use crate::{context::Context, edges::Tracker, status, writer::key};

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) context: Arc<Context>,
    pub(super) namespace: Namespace,
}

/// An answer, or a call that has to wait for one.
pub(super) enum Answered {
    Now(Outgoing),
    Later(Later),
}

impl Caller {
    /// Answers what needs no waiting; everything else becomes a future. `tracker` counts it, when the caller has a name.
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
            DiscoveryRequest::List { query } => {
                (5, self.answer(id, DiscoveryResponse::List(self.list(&query, tracker))))
            }
            DiscoveryRequest::Services {} => {
                let services = self.context.registry.services(&self.namespace);
                (6, self.answer(id, DiscoveryResponse::Services(Ok(services))))
            }
            DiscoveryRequest::Report { id: instance, trouble } => {
                (8, self.answer(id, DiscoveryResponse::Report(self.report(&instance, trouble))))
            }
            DiscoveryRequest::Status {} => {
                let status = status::status(&self.context, Some(&self.namespace));
                (9, self.answer(id, DiscoveryResponse::Status(Ok(status))))
            }
            DiscoveryRequest::Graph {} => {
                let graph = status::graph(&self.context, &self.namespace);
                (10, self.answer(id, DiscoveryResponse::Graph(Ok(graph))))
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
            DiscoveryRequest::Watch { query, after, wait } => return self.watch(id, query, after, wait, tracker),
        };
        self.context.meters.called(method, began.elapsed());
        Answered::Now(outgoing)
    }

    fn answer(&self, id: u64, response: DiscoveryResponse) -> Outgoing {
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

    fn list(
        &self,
        query: &Query,
        tracker: Option<&mut Tracker>,
    ) -> Result<Vec<Arc<roundsman_protocol::Instance>>, DiscoveryError> {
        query.validate()?;
        if let Some(tracker) = tracker {
            tracker.listed(&query.services);
        }
        let unknown =
            |service: &&roundsman_protocol::ServiceName| !self.context.registry.has_service(&self.namespace, service);
        // Asked for one service that nobody ever registered, "none" would hide a mistyped name.
        if let [service] = query.services.as_slice()
            && unknown(&service)
        {
            return Err(DiscoveryError::NoSuchService { service: service.clone() });
        }
        Ok(self.context.registry.list(&self.namespace, query))
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
        let result = self.context.writer.register(self.namespace.clone(), registration).await;
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

    fn watch(
        &self,
        id: u64,
        query: Query,
        after: Option<Cursor>,
        wait: Wait,
        tracker: Option<&mut Tracker>,
    ) -> Answered {
        let limit = self.context.config.max_watches;
        if let Err(invalid) = query.validate() {
            return Answered::Now(self.answer(id, DiscoveryResponse::Watch(Err(invalid.into()))));
        }
        // Follows until it is dropped, and a little longer: an answered watch comes again.
        let watching = tracker.map(|tracker| tracker.watches(&query.services));
        // Most watches of a connection find news waiting, or none and then wait: only those that wait are counted.
        let update = self.context.registry.look(&self.namespace, &query, after);
        if !update.is_unchanged() {
            self.context.meters.called(7, Duration::ZERO);
            return Answered::Now(self.answer(id, DiscoveryResponse::Watch(Ok(update))));
        }
        if self.context.registry.watches() >= limit {
            let value = u64::try_from(limit).unwrap_or(u64::MAX);
            let error = DiscoveryError::LimitReached { limit: "--max-watches".to_owned(), value };
            return Answered::Now(self.answer(id, DiscoveryResponse::Watch(Err(error))));
        }
        let caller = self.clone();
        let wait = wait.0.min(limits::MAX_WATCH_WAIT);
        Answered::Later(Box::new(move |stop: CancellationToken| {
            async move {
                let cursor = update.cursor;
                let watch = caller.context.registry.watch(&caller.namespace, &query, Some(cursor), wait);
                let update = stop.run_until_cancelled(watch).await.unwrap_or_else(|| Update::unchanged(cursor));
                caller.context.meters.called(7, Duration::ZERO);
                drop(watching);
                done(caller.answer(id, DiscoveryResponse::Watch(Ok(update))))
            }
            .boxed()
        }))
    }

    /// A call that goes through the writer.
    fn later<F>(&self, id: u64, method: usize, call: impl FnOnce(Self) -> F + Send + 'static) -> Answered
    where
        F: Future<Output = (DiscoveryResponse, Option<InstanceId>)> + Send + 'static,
    {
        let (caller, began) = (self.clone(), Instant::now());
        Answered::Later(Box::new(move |_stop| {
            async move {
                let (response, instance) = call(caller.clone()).await;
                caller.context.meters.called(method, began.elapsed());
                let registered = matches!(response, DiscoveryResponse::Register(_));
                let done = done(caller.answer(id, response));
                if registered { Done { registered: instance, ..done } } else { Done { deregistered: instance, ..done } }
            }
            .boxed()
        }))
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

fn done(outgoing: Outgoing) -> Done {
    Done { outgoing, registered: None, deregistered: None }
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
