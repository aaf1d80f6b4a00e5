//! Calls as they come in, and what becomes of them: which is answered at once, which is a future, and how answers are
//! written. What they do is [`Api`]'s business.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::FutureExt;
use roundsman_protocol::{
    Bookmark, Dialect, DiscoveryError, DiscoveryRequest, DiscoveryResponse, Query, Update, wire::Answer,
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Kind, Later},
    encoded::{Encodings, Form},
    frame::{Outgoing, frame, put},
    subset::Asked,
};
use crate::api::{Api, Caller, Found, Listing, Sight};

/// Translates the calls of one connection.
pub(super) struct Desk {
    pub(super) api: Api,
    scribe: Scribe,
}

/// Writes the answers to one caller; goes along with what waits or takes long.
#[derive(Clone, Debug)]
pub(super) struct Scribe {
    caller: Caller,
    dialect: Dialect,
    encodings: Arc<Encodings>,
}

/// An answer, or a call that has to wait for one.
pub(super) enum Answered {
    Now(Outgoing),
    Later(Later),
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(api: Api, dialect: Dialect, encodings: Arc<Encodings>) -> Self {
        let scribe = Scribe { caller: api.caller().clone(), dialect, encodings };
        Self { api, scribe }
    }

    /// Answers what needs no waiting and little work; everything else becomes a future.
    pub(super) fn call(&mut self, id: u64, request: DiscoveryRequest) -> Answered {
        match request {
            DiscoveryRequest::Get { service } => Answered::Now(match self.api.get(&service) {
                Ok(record) => Outgoing::Got { id, record },
                Err(error) => answer(id, DiscoveryResponse::Get(Err(error))),
            }),
            DiscoveryRequest::Renew { id: instance } => now(id, DiscoveryResponse::Renew(self.api.renew(&instance))),
            DiscoveryRequest::Report { id: instance, trouble } => {
                now(id, DiscoveryResponse::Report(self.api.report(&instance, trouble)))
            }
            DiscoveryRequest::List { query, after } if query.subset.is_some() => self.list_subset(id, query, after),
            DiscoveryRequest::Watch { query, after, wait, known, page } if query.subset.is_some() => {
                self.watch_subset(id, query, Asked { after, wait, known, page })
            }
            DiscoveryRequest::List { query, after } => self.list(id, query, after),
            DiscoveryRequest::Watch { query, after, wait, known, page } => {
                let watched = self.api.watch(query, after, wait, known, page);
                self.watch(id, watched)
            }
            DiscoveryRequest::Services {} => self.services(id),
            DiscoveryRequest::Status {} => {
                let frame = self.framing(id);
                framed(id, self.api.status(Sight::Namespace, |status| frame(DiscoveryResponse::Status(Ok(status)))))
            }
            DiscoveryRequest::Graph {} => {
                let frame = self.framing(id);
                framed(id, self.api.graph(|graph| frame(DiscoveryResponse::Graph(Ok(graph)))))
            }
            DiscoveryRequest::History { query } => {
                let frame = self.framing(id);
                let told = self.api.history(query, |page| frame(DiscoveryResponse::History(Ok(page))));
                work(async move {
                    match told.await {
                        Ok(written) => outgoing(id, Ok(written)),
                        Err(error) => answer(id, DiscoveryResponse::History(Err(error))),
                    }
                })
            }
            DiscoveryRequest::Register { registration } => {
                change(id, self.api.register(registration).map(DiscoveryResponse::Register))
            }
            DiscoveryRequest::Deregister { id: instance } => {
                change(id, self.api.deregister(instance).map(DiscoveryResponse::Deregister))
            }
            DiscoveryRequest::Drain { id: instance, on } => {
                change(id, self.api.drain(instance, on).map(DiscoveryResponse::Drain))
            }
            DiscoveryRequest::Dismiss { id: instance, block } => {
                change(id, self.api.dismiss(instance, block).map(DiscoveryResponse::Dismiss))
            }
            DiscoveryRequest::Update { id: instance, patch } => {
                change(id, self.api.update(instance, patch).map(DiscoveryResponse::Update))
            }
        }
    }

    pub(super) fn scribe(&self) -> Scribe {
        self.scribe.clone()
    }

    fn list(&mut self, id: u64, query: Query, after: Option<Bookmark>) -> Answered {
        match self.api.list(query, after) {
            Ok(listing) if !listing.is_small() => {
                let scribe = self.scribe();
                work(async move { scribe.shared(id, Form::List, listing).await })
            }
            listed => now(id, DiscoveryResponse::List(listed.and_then(Listing::page))),
        }
    }

    fn services(&self, id: u64) -> Answered {
        if let Some(services) = self.api.few_services() {
            return now(id, DiscoveryResponse::Services(Ok(services)));
        }
        let frame = self.framing(id);
        framed(id, self.api.services(|services| frame(DiscoveryResponse::Services(Ok(services)))))
    }

    /// Writes one answer, on whichever thread.
    fn framing(&self, id: u64) -> impl FnOnce(DiscoveryResponse) -> Result<Bytes, DiscoveryError> + Send + use<> {
        let scribe = self.scribe();
        move |response| scribe.frame(id, response)
    }
}

// === impl Scribe ===

impl Scribe {
    /// A page of a long answer, encoded once for all who ask for it.
    pub(super) async fn shared(&self, id: u64, form: Form, listing: Listing) -> Outgoing {
        let _turn = self.caller.turn().await;
        match self.encoded(id, form, listing).await {
            Ok(outgoing) => outgoing,
            Err(error) => answer(
                id,
                match form {
                    Form::List => DiscoveryResponse::List(Err(error)),
                    Form::Watch => DiscoveryResponse::Watch(Err(error)),
                },
            ),
        }
    }

    async fn encoded(&self, id: u64, form: Form, listing: Listing) -> Result<Outgoing, DiscoveryError> {
        let (found, timing) = listing.found().await?;
        match found {
            Found::Known(cursor) => {
                timing.done(Ok(answer(id, DiscoveryResponse::Watch(Ok(Update::unchanged(cursor))))))
            }
            Found::Instances(reading) => {
                let namespace = self.caller.namespace().clone();
                let encoded = self.encodings.answer(namespace, self.dialect, form, reading).await;
                timing.done(encoded.map(|encoded| Outgoing::Shared { id, encoded }))
            }
        }
    }

    /// A long answer to this caller only, written where nobody else waits for it.
    pub(super) async fn aside(&self, id: u64, response: DiscoveryResponse) -> Outgoing {
        let scribe = self.clone();
        let written = self.caller.aside(move || scribe.frame(id, response)).await;
        outgoing(id, written)
    }

    /// The frame of an answer; a long one is accounted for until it is read.
    fn frame(&self, id: u64, response: DiscoveryResponse) -> Result<Bytes, DiscoveryError> {
        let mut out = Vec::new();
        let message = Ok(response);
        let response = Answer::new(self.dialect.version, id, &message);
        if let Err(error) = frame(&mut out, |out| put(self.dialect.codec, out, &response)) {
            tracing::error!(%error, "an answer could not be written");
            return Err(DiscoveryError::ShuttingDown);
        }
        self.caller.account(out)
    }
}

pub(super) fn answer(id: u64, response: DiscoveryResponse) -> Outgoing {
    Outgoing::Answer { id, message: Box::new(Ok(response)) }
}

pub(super) fn now(id: u64, response: DiscoveryResponse) -> Answered {
    Answered::Now(answer(id, response))
}

/// A call that somebody is at work on.
pub(super) fn work(call: impl Future<Output = Outgoing> + Send + 'static) -> Answered {
    later(Kind::Work, call)
}

/// A call that goes through the writer.
fn change(id: u64, call: impl Future<Output = DiscoveryResponse> + Send + 'static) -> Answered {
    later(Kind::Change, call.map(move |response| answer(id, response)))
}

/// A call whose answer is written elsewhere.
fn framed<F>(id: u64, call: F) -> Answered
where
    F: Future<Output = Result<Result<Bytes, DiscoveryError>, DiscoveryError>> + Send + 'static,
{
    work(call.map(move |written| outgoing(id, written)))
}

fn later(kind: Kind, call: impl Future<Output = Outgoing> + Send + 'static) -> Answered {
    Answered::Later(Later { kind, call: Box::new(move |_: CancellationToken| call.boxed()) })
}

fn outgoing(id: u64, written: Result<Result<Bytes, DiscoveryError>, DiscoveryError>) -> Outgoing {
    match written.flatten() {
        Ok(frame) => Outgoing::Framed(frame),
        Err(error) => Outgoing::refusal(id, std::io::ErrorKind::ResourceBusy, error.to_string()),
    }
}
