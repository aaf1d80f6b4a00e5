//! Answers in pages as a client puts them together, while everything changes between two pages.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use roundsman_protocol::{
    Bookmark, Check, Codec, Cursor, Digest, DiscoveryRequest, DiscoveryResponse, Instance, InstanceId, Known,
    Namespace, Page, Query, Registration, Update, Version, rpc::Wait, wire::read_response,
};
use roundsman_registry::{Health, Record};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answered, Desk},
    calls::Later,
    encoded::Encodings,
    outbox::Outbox,
};
use crate::{api::tests::Inside, config::Config};

/// A few dozen instances of those that are registered here.
const PAGE: usize = 6 * 1_024;

/// A server without sockets.
struct Room {
    inside: Inside,
    encodings: Arc<Encodings>,
    dialect: roundsman_protocol::Dialect,
}

/// What happens between two pages.
#[derive(Clone, Debug)]
enum Event {
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

fn event() -> impl Strategy<Value = Event> {
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
    fn new(version: Version, codec: Codec, page: usize) -> Self {
        let inside = Inside::new(Config { max_instances_per_connection: 1_000_000, ..Config::default() });
        let context = &inside.context;
        let encodings = Encodings::with_pages(context.offload.clone(), Arc::clone(&context.budget), page);
        Self { encodings: Arc::new(encodings), inside, dialect: roundsman_protocol::Dialect { version, codec } }
    }

    async fn ask(&self, request: DiscoveryRequest) -> DiscoveryResponse {
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

    async fn list(&self, query: &Query, after: Option<Bookmark>) -> Page {
        match self.ask(DiscoveryRequest::List { query: query.clone(), after }).await {
            DiscoveryResponse::List(Ok(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    async fn watch(
        &self,
        query: &Query,
        after: Option<Cursor>,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> Update {
        let wait = Wait(std::time::Duration::ZERO);
        match self.ask(DiscoveryRequest::Watch { query: query.clone(), after, wait, known, page }).await {
            DiscoveryResponse::Watch(Ok(update)) => update,
            other => panic!("{other:?}"),
        }
    }

    /// What there is, as nobody pages it.
    fn all(&self, query: &Query) -> Vec<Arc<Instance>> {
        self.inside.context.registry.snapshot(&Namespace::default(), query).matching(query).collect()
    }

    /// Says whether what is being read may no longer be of one moment.
    async fn happen(&self, event: &Event) -> bool {
        let api = self.inside.api(None);
        let id = |n: &u16| format!("db-{n:03}").parse::<InstanceId>().unwrap();
        match event {
            Event::Register(n, label) => drop(api.register(registration(*n, *label)).await),
            Event::Deregister(n) => drop(api.deregister(id(n)).await),
            Event::Drain(n, on) => drop(api.drain(id(n), *on).await),
            Event::Forget => self.inside.context.moments.clear(),
            Event::Overrun(n) => {
                self.inside.context.moments.clear();
                let key = roundsman_registry::Key { namespace: Namespace::default(), id: id(n) };
                let record =
                    Record::registered(&key, &registration(*n, 2), 0, roundsman_protocol::Timestamp::default());
                let Record { instance, draining, incarnation, history, .. } = record;
                let instance = Instance::clone(&instance);
                let record = Record::restored(instance, Health::Passing, draining, incarnation, history);
                drop(self.inside.context.registry.load(vec![record]));
                return true;
            }
            Event::Restart => return true,
        }
        false
    }
}

/// Half of them are of another service, and some move from one to the other.
fn registration(n: u16, label: u8) -> Registration {
    let service = if (n + u16::from(label == 1)) % 3 == 0 { "db" } else { "cache" };
    let address = format!("10.0.{}.{}:1", n / 250, n % 250 + 1).parse().unwrap();
    let tags = vec![format!("label-{label}").into()];
    let id = Some(format!("db-{n:03}").parse().unwrap());
    Registration { id, tags, check: Check::none(), ..Registration::new(service.parse().unwrap(), address) }
}

/// What a client makes of it.
#[derive(Default)]
struct Watcher {
    cursor: Option<Cursor>,
    known: BTreeMap<InstanceId, Arc<Instance>>,
}

impl Watcher {
    fn digest(&self) -> Known {
        Known::Digest(Digest::of(self.known.values().map(|instance| &**instance)))
    }

    fn take(&mut self, update: Update) {
        self.cursor = Some(update.cursor);
        if update.snapshot {
            self.known.clear();
        }
        self.known.retain(|id, _| !update.parts.iter().any(|part| usize::from(*part) == id.part()));
        for gone in update.removed {
            self.known.remove(&gone.id);
        }
        self.known.extend(update.instances.into_iter().map(|instance| (instance.id.clone(), instance)));
    }
}

/// The same bookmark from a server with another epoch.
fn foreign(bookmark: &Bookmark) -> Bookmark {
    let (_, rest) = bookmark.as_str().split_once('.').unwrap();
    format!("7.{rest}").parse().unwrap()
}

async fn watched_while(room: &Room, query: &Query, mut events: &[Event], digests: bool) {
    let mut watcher = Watcher::default();
    for round in 0.. {
        assert!(round < 1_000, "it never converges");
        let known = digests.then(|| watcher.digest());
        let begun = room.all(query);
        let mut update = room.watch(query, watcher.cursor, known, None).await;
        let now = room.inside.context.registry.snapshot(&Namespace::default(), query).cursor();
        let (mut whole, mut restarted) = (update.snapshot && update.cursor == now, false);
        while let Some(mut next) = update.next.take() {
            let happens;
            (happens, events) = events.split_at(events.len().min(2));
            for event in happens {
                whole &= !room.happen(event).await;
                restarted |= matches!(event, Event::Restart);
            }
            if restarted {
                next = foreign(&next);
            }
            let more = room.watch(query, None, None, Some(next)).await;
            assert_eq!((more.snapshot, &more.parts), (update.snapshot, &update.parts));
            assert!(restarted || more.cursor == update.cursor, "all pages have the cursor of the first");
            update.instances.extend(more.instances);
            update.next = more.next;
        }
        if whole {
            assert!(update.instances == begun, "all pages show one moment");
        }
        if restarted {
            update.cursor.epoch = 7;
        }
        let quiet = update.is_unchanged() && events.is_empty();
        watcher.take(update);
        if quiet {
            break;
        }
        if let [event, rest @ ..] = events {
            room.happen(event).await;
            events = rest;
        }
    }
    assert!(watcher.known.into_values().eq(by_id(room.all(query))), "the watcher knows what the server knows");
}

fn by_id(mut instances: Vec<Arc<Instance>>) -> Vec<Arc<Instance>> {
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    instances
}

async fn fill(room: &Room, count: u16) {
    for n in 0..count {
        room.happen(&Event::Register(n, 0)).await;
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn queries() -> impl Strategy<Value = Query> {
    let one = Query::service("db".parse().unwrap());
    let tagged = Query { tags: vec!["label-0".into()], ..Query::default() };
    prop_oneof![
        Just(Query::default()),
        Just(one),
        Just(tagged),
        Just(Query::default().scope(roundsman_protocol::Scope::All))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_between_pages_the_watcher_ends_with_what_the_server_knows(
        query in queries(),
        events in proptest::collection::vec(event(), 0..60),
        json in any::<bool>(),
        digests in any::<bool>(),
    ) {
        run(async {
            let codec = if json { Codec::Json } else { Codec::Postcard };
            let room = Room::new(Version::V3, codec, PAGE);
            fill(&room, 180).await;
            watched_while(&room, &query, &events, digests).await;
            room.inside.stop().await;
        });
    }

    #[test]
    fn a_list_shows_one_moment_as_long_as_the_log_reaches_back(
        query in queries(),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        run(async {
            let room = Room::new(Version::V3, Codec::Postcard, PAGE);
            fill(&room, 180).await;
            let (begun, mut page) = (room.all(&query), room.list(&query, None).await);
            let (mut listed, mut whole, mut events) = (page.instances, true, &events[..]);
            while let Some(mut next) = page.next {
                let happens;
                (happens, events) = events.split_at(events.len().min(4));
                for event in happens {
                    whole &= !room.happen(event).await;
                    if matches!(event, Event::Restart) {
                        next = foreign(&next);
                    }
                }
                page = room.list(&query, Some(next)).await;
                listed.extend(page.instances);
            }
            assert!(!whole || listed == begun);
            assert!(listed.is_sorted_by_key(|instance| (instance.name.clone(), instance.id.clone())));
            room.inside.stop().await;
        });
    }

    #[test]
    fn a_bookmark_that_nobody_gave_out_is_refused_or_a_harmless_page(text in "[!-~]{1,512}", epoch in any::<u64>()) {
        run(async {
            let room = Room::new(Version::V3, Codec::Postcard, PAGE);
            fill(&room, 100).await;
            for text in [text, format!("{epoch}.{epoch}.{epoch:x}.cache/zzz"), format!("1.{epoch}.1.a/a")] {
                let (query, bookmark) = (Query::default(), text.parse::<Bookmark>().unwrap());
                let after = Some(bookmark.clone());
                match room.ask(DiscoveryRequest::List { query: query.clone(), after }).await {
                    DiscoveryResponse::List(Ok(page)) => assert!(page.instances.len() <= 100),
                    DiscoveryResponse::List(Err(error)) => assert!(error.to_string().contains("begin anew")),
                    other => panic!("{other:?}"),
                }
                let wait = Wait(std::time::Duration::from_secs(300));
                let request = DiscoveryRequest::Watch { query, after: None, wait, known: None, page: Some(bookmark) };
                assert!(matches!(room.ask(request).await, DiscoveryResponse::Watch(_)), "it does not wait");
            }
            room.inside.stop().await;
        });
    }
}

#[tokio::test]
async fn a_digest_is_told_the_same_or_what_differs_or_all() {
    let room = Room::new(Version::V3, Codec::Postcard, PAGE);
    fill(&room, 180).await;
    let (plain, unknown) = (Query::default(), Some(Cursor { epoch: 7, revision: 7 }));
    let tagged = Query { tags: vec!["label-0".into()], ..Query::default() };
    for query in [plain, tagged] {
        let mut watcher = Watcher::default();
        watched_into(&room, &query, &mut watcher, None).await;
        // Without a wait or with one, the watcher is told at once that it knows all, and where to go on from.
        let same = room.watch(&query, unknown, Some(watcher.digest()), None).await;
        let cursor = room.inside.context.registry.snapshot(&Namespace::default(), &query).cursor();
        assert!(same.is_unchanged() && same.cursor == cursor);

        room.happen(&Event::Deregister(7)).await;
        room.happen(&Event::Deregister(9)).await;
        room.happen(&Event::Register(300, 0)).await;
        let some = watched_into(&room, &query, &mut watcher, unknown).await;
        assert!(!some.snapshot && (2..=3).contains(&some.parts.len()), "{some:?}");
        assert!(some.instances.len() < 40, "nothing of the other parts: {}", some.instances.len());
        assert!(watcher.known.values().eq(&by_id(room.all(&query))));

        watcher.known.retain(|id, _| id.part() >= 48);
        let all = watched_into(&room, &query, &mut watcher, unknown).await;
        assert!(all.snapshot && all.parts.is_empty());
        assert!(watcher.known.values().eq(&by_id(room.all(&query))));
        room.happen(&Event::Register(7, 0)).await;
        room.happen(&Event::Register(9, 0)).await;
        room.happen(&Event::Deregister(300)).await;
    }
    room.inside.stop().await;
}

/// Watches with what is known, through all pages.
async fn watched_into(room: &Room, query: &Query, watcher: &mut Watcher, after: Option<Cursor>) -> Update {
    let mut update = room.watch(query, after, Some(watcher.digest()), None).await;
    while let Some(next) = update.next.take() {
        let more = room.watch(query, None, None, Some(next)).await;
        update.instances.extend(more.instances);
        update.next = more.next;
    }
    watcher.take(update.clone());
    update
}

#[tokio::test]
async fn earlier_versions_get_everything_at_once() {
    for version in [Version::V1, Version::V2] {
        for codec in [Codec::Json, Codec::Postcard] {
            let room = Room::new(version, codec, PAGE);
            fill(&room, 180).await;
            let query = Query::default();
            assert_eq!(room.list(&query, None).await.instances, room.all(&query));
            let update = room.watch(&query, None, None, None).await;
            assert!(update.snapshot && update.next.is_none());
            assert_eq!(update.instances, room.all(&query));
            room.inside.stop().await;
        }
    }
}

#[tokio::test]
async fn the_second_page_of_a_service_that_is_gone_is_as_it_was() {
    let room = Room::new(Version::V3, Codec::Json, PAGE);
    fill(&room, 180).await;
    let query = Query::service("db".parse().unwrap());
    let (begun, mut page) = (room.all(&query), room.list(&query, None).await);
    for n in 0..180 {
        room.happen(&Event::Deregister(n)).await;
    }
    room.inside.context.moments.clear();
    let mut listed = page.instances;
    while let Some(next) = page.next {
        page = room.list(&query, Some(next)).await;
        listed.extend(page.instances);
    }
    assert_eq!(listed, begun);
    room.inside.stop().await;
}
