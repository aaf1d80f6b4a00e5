//! What every store promises about the past, and what each does when it has no room for it.

use std::{sync::Arc, time::Duration};

use redis::AsyncTypedCommands;
use roundsman_protocol::{Event, EventKind, HistoryPage, HistoryQuery, InstanceStatus, Namespace, Timestamp, Who};
use roundsman_store::{Keep, Store, StoreUrl};

use crate::{
    disk::SmallDisk,
    records::{RETENTION, asked, assert_holds, loaded, now, open, put, record, record_in, remove},
    redis_server::RedisServer,
    sqlite::Folder,
};

/// Enough for some tests, in a store that keeps a tenth as well.
const FEW: u64 = 200;

fn open_keeping(url: &StoreUrl, events: u64, age: Duration) -> Arc<dyn Store> {
    url.open_keeping(RETENTION, "server-1", Keep { events, age })
}

fn event_in(namespace: &str, service: &str, n: u64, at: u64) -> Event {
    Event {
        namespace: Some(namespace.parse().unwrap()),
        service: Some(service.parse().unwrap()),
        instance: Some(format!("{service}-{n}").parse().unwrap()),
        at: Timestamp::from_millis(now().as_millis() - 10_000 + at),
        kind: EventKind::Flip,
        from: Some(InstanceStatus::Passing),
        to: Some(InstanceStatus::Suspect),
        reason: format!("GET /health: \"503\" ü {at}").into(),
        who: None,
        server: "server-1".into(),
    }
}

async fn ask(store: &Arc<dyn Store>, query: HistoryQuery) -> HistoryPage {
    store.history(&Namespace::default(), &query).await.unwrap()
}

/// Everything, page after page.
async fn all(store: &Arc<dyn Store>, query: HistoryQuery) -> Vec<Event> {
    let (mut events, mut after) = (Vec::new(), None);
    loop {
        let page = ask(store, HistoryQuery { after, ..query.clone() }).await;
        events.extend(page.events);
        after = page.next;
        if after.is_none() {
            return events;
        }
    }
}

fn backwards(events: &[Event]) -> Vec<Event> {
    events.iter().rev().cloned().collect()
}

macro_rules! history {
    ($($name:ident),* $(,)?) => {
        mod in_memory { $(#[tokio::test] async fn $name() {
            super::$name(&"memory:".parse().unwrap()).await;
        })* }
        mod in_sqlite { $(#[tokio::test] async fn $name() {
            let folder = super::Folder::new();
            super::$name(&folder.url()).await;
        })* }
        mod in_redis { $(#[tokio::test] async fn $name() {
            let redis = super::RedisServer::start().await;
            super::$name(&redis.url()).await;
        })* }
    };
}

history!(
    events_come_back_whole_and_newest_first,
    questions_are_about_a_service_an_instance_or_a_time,
    pages_go_on_where_the_last_one_ended,
    too_many_events_are_cut_and_a_mark_says_so,
    old_events_are_cut_and_a_mark_says_so,
    marks_of_others_are_part_of_every_answer,
);

async fn events_come_back_whole_and_newest_first(url: &StoreUrl) {
    let store = open(url);
    store.load().await.unwrap();
    assert_eq!(ask(&store, HistoryQuery::default()).await, HistoryPage::default());
    let who = Who { session: Some("7".into()), address: Some("[::1]:4711".into()), service: Some("order".into()) };
    let asked = Event { kind: EventKind::Drained, who: Some(who), ..event_in("default", "product", 1, 1) };
    let bare = Event { from: None, to: None, reason: "".into(), ..event_in("default", "product", 2, 2) };
    // By a clock that went back: what happened later is newer all the same.
    let back = event_in("default", "product", 3, 0);
    let elsewhere = event_in("shop", "product", 1, 3);
    let committed = store.commit(&[put(&record("product", 1))], &[asked.clone(), elsewhere.clone()]).await.unwrap();
    assert!(committed.untold.is_empty() && committed.failed.is_empty(), "{committed:?}");
    store.commit(&[], &[bare.clone(), back.clone()]).await.unwrap();
    assert_eq!(all(&store, HistoryQuery::default()).await, [back, bare, asked]);
    let shop = store.history(&"shop".parse().unwrap(), &HistoryQuery::default()).await.unwrap();
    assert_eq!(shop.events, [elsewhere]);
}

async fn questions_are_about_a_service_an_instance_or_a_time(url: &StoreUrl) {
    let store = open(url);
    let mut events: Vec<_> = (0..40).map(|n| event_in("default", "product", n % 4, n * 100)).collect();
    for event in events.iter_mut().step_by(2) {
        event.service = Some("order".parse().unwrap());
    }
    for events in events.chunks(7) {
        store.commit(&[], events).await.unwrap();
    }
    let expected = |wanted: &dyn Fn(&Event) -> bool| -> Vec<Event> {
        events.iter().rev().filter(|event| wanted(event)).cloned().collect()
    };
    let (service, instance) = ("order".parse().unwrap(), "product-3".parse().unwrap());
    let (since, until) = (events[10].at, events[20].at);
    let query = HistoryQuery { service: Some("order".parse().unwrap()), ..HistoryQuery::default() };
    assert_eq!(all(&store, query).await, expected(&|event| event.service.as_ref() == Some(&service)));
    let query = HistoryQuery { instance: Some("product-3".parse().unwrap()), ..HistoryQuery::default() };
    assert_eq!(all(&store, query).await, expected(&|event| event.instance.as_ref() == Some(&instance)));
    let query = HistoryQuery { since: Some(since), until: Some(until), ..HistoryQuery::default() };
    assert_eq!(all(&store, query.clone()).await, expected(&|event| event.at >= since && event.at <= until));
    let query = HistoryQuery { service: Some("order".parse().unwrap()), limit: 2, ..query };
    let expected =
        expected(&|event| event.service.as_ref() == Some(&service) && event.at >= since && event.at <= until);
    assert_eq!(all(&store, query).await, expected);
}

async fn pages_go_on_where_the_last_one_ended(url: &StoreUrl) {
    let store = open(url);
    let events: Vec<_> = (0..2_500).map(|n| event_in("default", "product", n, n / 10)).collect();
    store.commit(&[], &events).await.unwrap();
    let first = ask(&store, HistoryQuery { limit: 999_999, ..HistoryQuery::default() }).await;
    assert_eq!(first.events.len(), 1_000);
    let third = HistoryQuery { limit: 3, ..HistoryQuery::default() };
    let page = ask(&store, third.clone()).await;
    // What happens meanwhile is newer, and not part of what follows.
    store.commit(&[], &[event_in("default", "product", 1, 9_000)]).await.unwrap();
    let next = ask(&store, HistoryQuery { after: page.next.clone(), ..third }).await;
    assert_eq!([page.events, next.events].concat(), backwards(&events)[..6]);
    assert_eq!(all(&store, HistoryQuery::default()).await[1..], backwards(&events));
    // What is no bookmark of this store begins at the newest.
    let nonsense = HistoryQuery { after: Some("nonsense".into()), limit: 1, ..HistoryQuery::default() };
    assert_eq!(ask(&store, nonsense).await.events[0].instance, Some("product-1".parse().unwrap()));
}

async fn too_many_events_are_cut_and_a_mark_says_so(url: &StoreUrl) {
    let store = open_keeping(url, FEW, Duration::from_secs(3_600));
    let events: Vec<_> = (0..2_000).map(|n| event_in("default", "product", n, n)).collect();
    for events in events.chunks(100) {
        let committed = store.commit(&[], events).await.unwrap();
        assert!(committed.untold.is_empty());
    }
    let found = all(&store, HistoryQuery::default()).await;
    let (cut, kept) = found.split_last().unwrap();
    assert_eq!(cut.kind, EventKind::Cut);
    assert!(cut.reason.contains("are kept"), "{cut:?}");
    assert!(kept.len() >= 20 && kept.len() <= 500, "{}", kept.len());
    assert_eq!(kept, &backwards(&events)[..kept.len()], "the newest are there, without a gap");
    assert!(cut.at <= kept.last().unwrap().at);
    let none = HistoryQuery { since: Some(events[1_999].at), ..HistoryQuery::default() };
    assert_eq!(all(&store, none).await.len(), 1, "nothing is missing of that time");
}

async fn old_events_are_cut_and_a_mark_says_so(url: &StoreUrl) {
    let store = open_keeping(url, 10_000, Duration::from_secs(3_600));
    let long_ago = |n: u64| Event {
        at: Timestamp::from_millis(now().as_millis() - 7_200_000 + n),
        ..event_in("default", "product", n, 0)
    };
    let old: Vec<_> = (0..1_000).map(long_ago).collect();
    let fresh: Vec<_> = (0..200).map(|n| event_in("default", "product", n, n)).collect();
    store.commit(&[], &old).await.unwrap();
    store.commit(&[], &fresh).await.unwrap();
    for _ in 0..20 {
        store.probe().await.unwrap();
    }
    let found = all(&store, HistoryQuery::default()).await;
    let cut = found.last().unwrap();
    assert!(cut.kind == EventKind::Cut && cut.reason.contains("1h"), "{cut:?}");
    assert_eq!(found[..200], backwards(&fresh));
    // Redis drops whole nodes of a hundred.
    assert!(found.len() <= 200 + 100 + 1, "{}", found.len());
}

/// Such as the server writes them when it could not tell everything.
async fn marks_of_others_are_part_of_every_answer(url: &StoreUrl) {
    let store = open(url);
    let (before, after) = (event_in("default", "product", 1, 1), event_in("default", "product", 1, 3));
    let at = event_in("default", "product", 1, 2).at;
    let mark = Event::cut(Some(Namespace::default()), at, "7 events were dropped".into(), "server-1".into());
    store.commit(&[], &[before.clone(), mark.clone(), after.clone()]).await.unwrap();
    let query = HistoryQuery { instance: Some("product-1".parse().unwrap()), ..HistoryQuery::default() };
    assert_eq!(all(&store, query).await, [after, mark.clone(), before]);
    let query = HistoryQuery { service: Some("order".parse().unwrap()), ..HistoryQuery::default() };
    assert_eq!(all(&store, query).await, [mark]);
}

#[tokio::test]
async fn it_survives_a_restart_with_its_mark() {
    let folder = Folder::new();
    let events: Vec<_> = (0..500).map(|n| event_in("default", "product", n, n)).collect();
    let store = open_keeping(&folder.url(), FEW, Duration::from_secs(3_600));
    store.commit(&[put(&record("product", 1))], &events).await.unwrap();
    let before = all(&store, HistoryQuery::default()).await;
    drop(store);
    let store = open_keeping(&folder.url(), FEW, Duration::from_secs(3_600));
    assert_eq!(all(&store, HistoryQuery::default()).await, before);
    assert_eq!(before.last().unwrap().kind, EventKind::Cut);
    // Whatever the clock says, what comes now is newer.
    let back = Event { at: Timestamp::from_millis(1), ..event_in("default", "product", 1, 0) };
    store.commit(&[], std::slice::from_ref(&back)).await.unwrap();
    assert_eq!(all(&store, HistoryQuery::default()).await[0], back);
}

#[tokio::test]
async fn a_history_that_cannot_be_written_keeps_no_change_out() {
    let folder = Folder::new();
    let store = folder.store();
    let (a, b) = (record("product", 1), record("product", 2));
    let event = event_in("default", "product", 1, 1);
    store.commit(&[put(&a)], std::slice::from_ref(&event)).await.unwrap();
    let person = rusqlite::Connection::open(&folder.file).unwrap();
    person.execute_batch("ALTER TABLE history RENAME TO aside").unwrap();
    let committed = store.commit(&[put(&b)], std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(committed.untold, std::slice::from_ref(&event));
    person.execute_batch("ALTER TABLE aside RENAME TO history").unwrap();
    let committed = store.commit(&[], &committed.untold).await.unwrap();
    assert!(committed.untold.is_empty());
    assert_eq!(all(&store, HistoryQuery::default()).await, [event.clone(), event]);
    assert_holds(loaded(&store).await, &[&a, &b]);
}

/// The records are what counts: with a damaged history the server starts, and goes on without.
#[tokio::test]
async fn a_damaged_history_keeps_no_server_from_starting() {
    let folder = Folder::new();
    let store = folder.store();
    let (a, b) = (record("product", 1), record("product", 2));
    let events: Vec<_> = (0..2_000).map(|n| event_in("default", "product", n, n)).collect();
    store.commit(&[put(&a)], &events).await.unwrap();
    drop(store);
    let person = rusqlite::Connection::open(&folder.file).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'history'";
    let mut statement = person.prepare(sql).unwrap();
    let pages: Vec<usize> =
        statement.query_map([], |row| row.get::<_, u32>(0)).unwrap().map(|page| page.unwrap() as usize).collect();
    drop(statement);
    drop(person);
    let mut bytes = std::fs::read(&folder.file).unwrap();
    for page in pages {
        bytes[(page - 1) * 4_096..page * 4_096].fill(0xa5);
    }
    std::fs::write(&folder.file, bytes).unwrap();
    let store = folder.store();
    assert_holds(loaded(&store).await, &[&a]);
    let committed = store.commit(&[put(&b)], &events[..1]).await.unwrap();
    assert_eq!(committed.untold, events[..1]);
    store.probe().await.unwrap();
    let refused = store.history(&Namespace::default(), &HistoryQuery::default()).await.unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    assert_holds(loaded(&store).await, &[&a, &b]);
}

/// Where there is room for the changes alone, they have it.
#[tokio::test]
async fn on_a_full_disk_events_give_way() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = open(&StoreUrl::sqlite(disk.path().join("r.db")));
    let (kept, gone) = (record("product", 1), record("product", 2));
    store.commit(&[put(&kept), put(&gone)], &[]).await.unwrap();
    let large = Event { reason: "x".repeat(64 << 10).into(), ..event_in("default", "product", 2, 1) };
    let events = vec![large; 12];
    disk.fill();
    disk.make_some_room(96 << 10);
    let drained = kept.drained(true, kept.asked.version + 1, now());
    let committed = store.commit(&[asked(&drained, &kept)], &events).await.unwrap();
    assert_eq!(committed.untold.len(), events.len());
    disk.fill_up();
    let committed = store.commit_from_reserve(&[remove(&gone)], &events[..1]).await.unwrap();
    assert_eq!(committed.untold.len(), 1, "the reserve is for changes");
    assert_holds(loaded(&store).await, &[&drained]);
    disk.make_room();
    crate::records::eventually("there is room for what happened", async || {
        store.commit(&[], &events[..1]).await.ok().filter(|committed| committed.untold.is_empty())
    })
    .await;
    assert_eq!(all(&store, HistoryQuery::default()).await, events[..1]);
}

#[tokio::test]
async fn a_history_of_another_kind_in_redis_keeps_no_change_out() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    cli.set("roundsman:{default}:history", "something else").await.unwrap();
    let (a, event) = (record("product", 1), event_in("default", "product", 1, 1));
    let committed = store.commit(&[put(&a)], std::slice::from_ref(&event)).await.unwrap();
    assert_eq!((committed.untold, committed.failed.len()), (vec![event.clone()], 0));
    cli.del("roundsman:{default}:history").await.unwrap();
    store.commit(&[], std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(all(&store, HistoryQuery::default()).await, [event]);
    assert_holds(loaded(&store).await, &[&a]);
}

/// One namespace that cannot be written hurts no other: neither its commits, nor the probe, nor what others hear.
#[tokio::test]
async fn a_namespace_that_fails_hurts_no_other() {
    let redis = RedisServer::start().await;
    let (store, other, mut cli) = (redis.store(), redis.store(), redis.cli().await);
    let named = |name: &str, n| record_in(&name.parse::<Namespace>().unwrap(), "product", n);
    let all: Vec<_> = ["a", "b", "c"].map(|name| named(name, 1)).into();
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    let mut heard = other.changes(other.load().await.unwrap().position);
    cli.rename("roundsman:{b}:changes", "aside").await.unwrap();
    cli.set("roundsman:{b}:changes", "something else").await.unwrap();

    let more: Vec<_> = ["a", "b", "c"].map(|name| named(name, 2)).into();
    let events = [event_in("a", "product", 2, 1), event_in("b", "product", 2, 2)];
    let committed = store.commit(&more.iter().map(put).collect::<Vec<_>>(), &events).await.unwrap();
    let failed: Vec<_> = committed.failed.iter().map(|(name, error)| (name.as_str(), error.to_string())).collect();
    assert!(matches!(&failed[..], [("b", why)] if why.contains("something else")), "{failed:?}");
    assert!(committed.untold.is_empty(), "what was not done is not told");
    store.probe().await.unwrap();
    let records: Vec<_> = all.iter().cloned().map(Arc::new).collect();
    assert!(store.missing(&records).await.unwrap().is_empty());
    let next = async |heard: &mut futures::stream::BoxStream<'static, _>| {
        let next = tokio::time::timeout(Duration::from_secs(60), futures::StreamExt::next(heard)).await;
        let foreign: Result<roundsman_store::Foreign, roundsman_store::StoreError> = next.unwrap().unwrap();
        foreign.unwrap().standing.key().namespace.to_string()
    };
    let mut names = vec![next(&mut heard).await, next(&mut heard).await];
    names.sort();
    assert_eq!(names, ["a", "c"]);

    cli.rename("aside", "roundsman:{b}:changes").await.unwrap();
    store.commit(&[put(&more[1])], &events[1..]).await.unwrap();
    assert_eq!(next(&mut heard).await, "b", "and it is heard of once it is whole again");
}
