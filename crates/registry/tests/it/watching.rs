//! Watches wake for what they asked, and only for that.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Namespace, Query, Registration, Scope, Timestamp, Update};
use roundsman_registry::{Edit, Key, Limits, Look, Record, Registry};
use tokio::time::{Instant, timeout};

const WAIT: Duration = Duration::from_secs(30);

fn namespace(name: &str) -> Namespace {
    name.parse().unwrap()
}

fn registered(service: &str) -> Query {
    Query::service(service.parse().unwrap()).scope(Scope::Registered)
}

fn register(registry: &Registry, space: &str, service: &str, port: u16) {
    let registration = Registration::new(service.parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
    let mut draft = registry.draft(Limits::default());
    draft.register(&namespace(space), Arc::new(registration), Timestamp::default()).unwrap();
    let (edits, _) = draft.finish(Timestamp::default());
    registry.apply(&edits);
}

async fn watch(registry: &Registry, space: &str, query: &Query, after: &Update) -> Update {
    registry.watch(&namespace(space), query, Some(after.cursor), WAIT).await.update(query)
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_cursor_answers_at_once_and_one_without_news_waits() {
    let registry = Registry::new(1);
    let began = Instant::now();
    let first = registry.watch(&namespace("a"), &registered("x"), None, WAIT).await.update(&registered("x"));
    assert!(first.snapshot && first.instances.is_empty() && began.elapsed().is_zero());
    let second = watch(&registry, "a", &registered("x"), &first).await;
    assert!(second.is_unchanged());
    assert_eq!(began.elapsed(), WAIT);
}

#[tokio::test(start_paused = true)]
async fn only_those_whom_it_concerns_are_woken() {
    let registry = Arc::new(Registry::new(1));
    register(&registry, "a", "other", 1);
    let first = registry.look(&namespace("a"), &registered("x"), None).update(&registered("x"));
    let everything = Query { scope: Scope::All, ..Query::default() };
    let all = registry.look(&namespace("a"), &everything, None).update(&everything);
    let (x, any) = (registered("x"), everything.clone());
    let mut concerned = std::pin::pin!(watch(&registry, "a", &x, &first));
    let mut global = std::pin::pin!(watch(&registry, "a", &any, &all));
    assert!(timeout(Duration::ZERO, &mut concerned).await.is_err());
    assert!(timeout(Duration::ZERO, &mut global).await.is_err());
    assert_eq!(registry.watches(), 2);

    register(&registry, "a", "other", 2);
    register(&registry, "b", "x", 3);
    assert!(timeout(Duration::from_secs(1), &mut concerned).await.is_err(), "another service, another namespace");
    assert_eq!(global.await.instances.len(), 1);

    register(&registry, "a", "x", 4);
    let update = timeout(Duration::ZERO, concerned).await.unwrap();
    assert_eq!(update.instances[0].address.port(), 4);
    assert_eq!(registry.watches(), 0, "whoever is gone no longer counts");
}

#[tokio::test(start_paused = true)]
async fn what_the_filter_does_not_see_wakes_nobody() {
    let registry = Registry::new(1);
    register(&registry, "a", "x", 1);
    let available = Query::service("x".parse().unwrap());
    let first = registry.look(&namespace("a"), &available, None).update(&available);
    let mut waiting = std::pin::pin!(watch(&registry, "a", &available, &first));
    register(&registry, "a", "x", 2);
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "both are still starting");
    let record = registry.records().into_iter().next().unwrap();
    let passing = Edit::Observe {
        key: record.key(),
        incarnation: record.asked.incarnation,
        by: "here".into(),
        health: roundsman_registry::Health::Passing,
        reason: "visited".into(),
        at: Timestamp::default(),
    };
    registry.apply(&[passing]);
    assert_eq!(timeout(Duration::ZERO, waiting).await.unwrap().instances.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_epoch_and_an_old_cursor_get_a_snapshot_at_once() {
    let before = Registry::new(1);
    register(&before, "a", "x", 1);
    let old = before.look(&namespace("a"), &registered("x"), None).update(&registered("x"));
    let registry = Registry::with_logs(2, 4, 1 << 20);
    register(&registry, "a", "x", 1);
    let update = watch(&registry, "a", &registered("x"), &old).await;
    assert!(update.snapshot && update.instances.len() == 1);
    for port in 2..9 {
        register(&registry, "a", "x", port);
    }
    let late = watch(&registry, "a", &registered("x"), &update).await;
    assert!(late.snapshot && late.instances.len() == 8);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_by_its_wait_answers_with_the_cursor_of_now() {
    let registry = Registry::with_logs(1, 8, 1 << 20);
    register(&registry, "a", "x", 1);
    register(&registry, "a", "other", 1);
    let query = registered("x");
    let first = registry.look(&namespace("a"), &query, None).update(&query);
    let mut waiting = std::pin::pin!(watch(&registry, "a", &query, &first));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    // More than the log keeps, all of it elsewhere.
    (2..102).for_each(|port| register(&registry, "a", "other", port));
    let quiet = waiting.await;
    assert!(quiet.is_unchanged());
    assert_eq!(quiet.cursor.revision, first.cursor.revision + 100);
    register(&registry, "a", "x", 2);
    let next = watch(&registry, "a", &query, &quiet).await;
    assert_eq!((next.snapshot, next.instances.len()), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn what_happened_to_others_costs_nobody_a_snapshot() {
    let registry = Registry::with_logs(1, 8, 1 << 20);
    register(&registry, "a", "x", 1);
    let query = registered("x");
    let first = registry.look(&namespace("a"), &query, None).update(&query);
    let mut waiting = std::pin::pin!(watch(&registry, "a", &query, &first));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    (1..101).for_each(|port| register(&registry, "a", "other", port));
    // Nobody waits meanwhile, and still its old cursor is one to go on from.
    let look = registry.look(&namespace("a"), &query, Some(first.cursor)).update(&query);
    assert!(look.is_unchanged() && look.cursor.revision == first.cursor.revision + 100);
    register(&registry, "a", "x", 2);
    let update = timeout(Duration::ZERO, waiting).await.unwrap();
    assert_eq!((update.snapshot, update.instances.len()), (false, 1), "it waited all the time");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_namespace_that_is_not_there_ends_quietly_when_others_come_and_go() {
    let registry = Registry::new(1);
    register(&registry, "b", "x", 1);
    let query = registered("x");
    let first = registry.look(&namespace("a"), &query, None).update(&query);
    let mut waiting = std::pin::pin!(watch(&registry, "a", &query, &first));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    deregister_all(&registry);
    register(&registry, "c", "x", 1);
    let quiet = waiting.await;
    assert!(quiet.is_unchanged() && quiet.cursor.revision > first.cursor.revision);

    // One that came and went in the meantime is news.
    let mut waiting = std::pin::pin!(watch(&registry, "a", &query, &quiet));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    register(&registry, "a", "x", 1);
    deregister_all(&registry);
    register(&registry, "d", "x", 1);
    let update = timeout(Duration::ZERO, waiting).await.unwrap();
    assert!(update.snapshot && update.instances.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watch_over_a_thousand_services_is_told_of_those_that_changed_left_or_came() {
    let registry = Registry::new(1);
    (0..1_000).for_each(|n| register(&registry, "a", &format!("s{n}"), 1));
    let services = (0..1_024).map(|n| format!("s{n}").parse().unwrap()).collect();
    let query = Query { services, scope: Scope::All, ..Query::default() }.canonical();
    let first = registry.look(&namespace("a"), &query, None).update(&query);
    assert_eq!(first.instances.len(), 1_000);
    (1..3_001).for_each(|port| register(&registry, "a", "other", port));
    let look = registry.look(&namespace("a"), &query, Some(first.cursor));
    assert!(matches!(&look, Look::Changes(changes) if changes.is_empty()), "nothing has to be looked through");
    let quiet = look.update(&query);

    register(&registry, "a", "s7", 2);
    register(&registry, "a", "s1023", 1);
    let gone = first.instances.iter().find(|instance| instance.name.as_str() == "s9").unwrap();
    let key = Key { namespace: namespace("a"), id: gone.id.clone() };
    registry.apply(&[Edit::Remove { key, reason: "done".into(), version: u64::MAX }]);
    for after in [&first, &quiet] {
        let update = watch(&registry, "a", &query, after).await;
        let mut names: Vec<_> = update.instances.iter().map(|instance| instance.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!((update.snapshot, names, update.removed.len()), (false, vec!["s1023", "s7"], 1));
        assert_eq!(update.removed[0].id, gone.id);
        assert_eq!(update, registry.look(&namespace("a"), &query, Some(after.cursor)).update(&query));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_a_former_life_of_the_namespace_gets_a_snapshot() {
    let registry = Registry::new(1);
    register(&registry, "a", "x", 1);
    let query = registered("x");
    let first = registry.look(&namespace("a"), &query, None).update(&query);
    deregister_all(&registry);
    register(&registry, "b", "x", 1);
    register(&registry, "a", "other", 1);
    let update = watch(&registry, "a", &query, &first).await;
    assert!(update.snapshot && update.instances.is_empty(), "it was never told that its instance is gone");
}

fn deregister_all(registry: &Registry) {
    let gone = |record: Arc<Record>| Edit::Remove { key: record.key(), reason: "done".into(), version: u64::MAX };
    let edits: Vec<Edit> = registry.records().into_iter().map(gone).collect();
    registry.apply(&edits);
}

#[test]
fn logs_keep_few_of_large_changes_and_give_back_what_they_kept() {
    let registry = Registry::with_logs(1, 1_000, 1 << 20);
    let large = |space: &str, n: usize| {
        let registration = Registration {
            id: Some("x-1".parse().unwrap()),
            meta: [("k".to_owned(), format!("{n:08}").repeat(2_000))].into_iter().collect(),
            ..Registration::new("x".parse().unwrap(), "10.0.0.1:1".parse().unwrap())
        };
        let mut draft = registry.draft(Limits::default());
        draft.register(&namespace(space), Arc::new(registration), Timestamp::default()).unwrap();
        registry.apply(&draft.finish(Timestamp::default()).0);
    };
    large("a", 0);
    let first = registry.look(&namespace("a"), &registered("x"), None).update(&registered("x"));
    (1..=3).for_each(|n| large("a", n));
    let update = registry.look(&namespace("a"), &registered("x"), Some(first.cursor)).update(&registered("x"));
    assert!(!update.snapshot, "three of 16 KB are kept");
    (4..=20).for_each(|n| large("a", n));
    let update = registry.look(&namespace("a"), &registered("x"), Some(first.cursor)).update(&registered("x"));
    assert!(update.snapshot, "twenty of 16 KB are more than a namespace may keep");
}
