//! A server without sockets, and what happens in it.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use roundsman_protocol::{
    Bookmark, Check, Codec, Cursor, Dialect, DiscoveryRequest, DiscoveryResponse, Instance, InstanceId, Known,
    Namespace, Page, Query, Registration, Timestamp, Update, Version, rpc::Wait, wire::read_response,
};
use roundsman_registry::{Health, Key, Record};
use tokio_util::sync::CancellationToken;

use super::super::{
    answer::{Answered, Desk},
    calls::Later,
    encoded::Encodings,
    outbox::Outbox,
};
use crate::{api::tests::Inside, config::Config};

/// A few dozen instances of those that are registered here.
pub(super) const PAGE: usize = 6 * 1_024;

/// A server without sockets.
pub(super) struct Room {
    pub(super) inside: Inside,
    pub(super) encodings: Arc<Encodings>,
    pub(super) dialect: Dialect,
}

/// What happens between two pages.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Register(u16, u8),
    Deregister(u16),
    Drain(u16, bool),
    /// The server drops the moments that it keeps.
    Forget,
    /// The change log no longer reaches back to what is being read.
    Overrun(u16),
    /// The bookmarks are those of another server.
    Restart,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..200_u16, 0..2_u8).prop_map(|(n, label)| Event::Register(n, label)),
        6 => (0..200_u16).prop_map(Event::Deregister),
        3 => (0..200_u16, any::<bool>()).prop_map(|(n, on)| Event::Drain(n, on)),
        3 => Just(Event::Forget),
        1 => (0..200_u16).prop_map(Event::Overrun),
        1 => Just(Event::Restart),
    ]
}

// === impl Room ===

impl Room {
    pub(super) fn new(version: Version, codec: Codec, page: usize) -> Self {
        let inside = Inside::new(Config { max_instances_per_connection: 1_000_000, ..Config::default() });
        let context = &inside.context;
        let encodings = Encodings::with_pages(context.offload.clone(), Arc::clone(&context.budget), page);
        Self { encodings: Arc::new(encodings), inside, dialect: Dialect { version, codec } }
    }

    pub(super) async fn ask(&self, request: DiscoveryRequest) -> DiscoveryResponse {
        let mut desk = Desk::new(self.inside.api(None), self.dialect, Arc::clone(&self.encodings));
        let answer = match desk.call(1, request) {
            Answered::Now(answer) => answer,
            Answered::Later(Later { call, .. }) => call(CancellationToken::new()).await,
        };
        let (mut outbox, mut frame) = (Outbox::default(), Vec::new());
        answer.put(self.dialect, &mut outbox).unwrap();
        outbox.share([]);
        outbox.drain_into(&mut frame);
        read_response(self.dialect, &frame[4..]).unwrap().message.unwrap()
    }

    pub(super) async fn list(&self, query: &Query, after: Option<Bookmark>) -> Page {
        match self.ask(DiscoveryRequest::List { query: query.clone(), after }).await {
            DiscoveryResponse::List(Ok(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn watch(
        &self,
        query: &Query,
        after: Option<Cursor>,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> Update {
        let wait = Wait(Duration::ZERO);
        match self.ask(DiscoveryRequest::Watch { query: query.clone(), after, wait, known, page }).await {
            DiscoveryResponse::Watch(Ok(update)) => update,
            other => panic!("{other:?}"),
        }
    }

    /// What there is, as nobody pages it.
    pub(super) fn all(&self, query: &Query) -> Vec<Arc<Instance>> {
        self.inside.context.registry.snapshot(&Namespace::default(), query).matching(query).collect()
    }

    /// Says whether what is being read may no longer be of one moment.
    pub(super) async fn happen(&self, event: &Event) -> bool {
        let api = self.inside.api(None);
        let id = |n: &u16| format!("db-{n:03}").parse::<InstanceId>().unwrap();
        match event {
            Event::Register(n, label) => drop(api.register(registration(*n, *label)).await),
            Event::Deregister(n) => drop(api.deregister(id(n)).await),
            Event::Drain(n, on) => drop(api.drain(id(n), *on).await),
            Event::Forget => self.inside.context.moments.clear(),
            Event::Overrun(n) => {
                self.inside.context.moments.clear();
                let key = Key { namespace: Namespace::default(), id: id(n) };
                let version = self.inside.context.registry.next_version(Timestamp::default());
                let record = Record::registered(&key, &registration(*n, 2), version, Timestamp::default());
                let record = record.seen(Health::Passing, "".into(), "".into(), Timestamp::default());
                drop(self.inside.context.registry.load(vec![record]));
                return true;
            }
            Event::Restart => return true,
        }
        false
    }
}

/// Half of them are of another service, and some move from one to the other.
pub(super) fn registration(n: u16, label: u8) -> Registration {
    let service = if (n + u16::from(label == 1)).is_multiple_of(3) { "db" } else { "cache" };
    let address = format!("10.0.{}.{}:1", n / 250, n % 250 + 1).parse().unwrap();
    let tags = vec![format!("label-{label}").into()];
    let id = Some(format!("db-{n:03}").parse().unwrap());
    Registration { id, tags, check: Check::none(), ..Registration::new(service.parse().unwrap(), address) }
}
