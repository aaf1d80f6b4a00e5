//! Watches wake for what they asked, and only for that.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Namespace, Query, Registration, Scope, Timestamp, Update};
use roundsman_registry::{Edit, Limits, Registry};
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
    let (edits, _) = draft.finish();
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
        incarnation: record.incarnation,
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
        registry.apply(&draft.finish().0);
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
