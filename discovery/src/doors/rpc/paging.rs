//! Answers in pages as a client puts them together, while everything changes between two pages.

mod room;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use roundsman_protocol::{
    Bookmark, Codec, Cursor, Digest, DiscoveryRequest, DiscoveryResponse, Instance, InstanceId, Known, Namespace,
    Query, Scope, Update, Version, rpc::Wait,
};

use self::room::{Event, PAGE, Room, event};

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
    prop_oneof![Just(Query::default()), Just(one), Just(tagged), Just(Query::default().scope(Scope::All))]
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
                let wait = Wait(Duration::from_secs(300));
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
