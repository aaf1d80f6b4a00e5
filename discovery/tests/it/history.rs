//! What a server writes into the history, and files that earlier servers wrote.

use std::{path::Path, time::Duration};

use roundsman_discovery::Server;
use roundsman_protocol::{Event, EventKind, HistoryQuery, Namespace};
use roundsman_store::StoreUrl;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Healthy, Raw, SOON, config};

/// What the store in this file tells of the default namespace, newest first.
async fn history(file: &Path) -> Vec<Event> {
    let store = StoreUrl::sqlite(file).open(Duration::from_secs(60), "a reader");
    store.history(&Namespace::default(), &HistoryQuery::default()).await.unwrap().events
}

fn told(events: &[Event], id: &str) -> Vec<(EventKind, String)> {
    let about = |event: &&Event| event.instance.as_ref().is_some_and(|known| known.as_str() == id);
    let told = events.iter().rev().filter(about);
    told.map(|event| (event.kind, event.reason.to_string())).collect()
}

#[tokio::test]
async fn what_was_asked_and_what_was_seen_survives_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roundsman.db");
    let store = format!("sqlite:{}", file.display());
    let server = Server::start(config(&store)).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let dies = Healthy::start().await;
    let registration = json!({"name": "product", "id": "p-1", "address": dies.addr.to_string()});
    raw.register(registration.clone()).await;
    raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "passing").await;
    raw.register(json!({"weight": 7, "name": "product", "id": "p-1", "address": dies.addr.to_string()})).await;
    let here = json!({"name": "db", "id": "db-1", "address": "10.0.0.7:1", "check": {"kind": "none"}});
    raw.register(here).await;
    raw.call(json!({"Drain": {"id": "db-1", "on": true}})).await;
    raw.call(json!({"Drain": {"id": "db-1", "on": false}})).await;
    raw.register(json!({"name": "db", "id": "db-2", "address": "10.0.0.7:1", "check": {"kind": "none"}})).await;
    raw.call(json!({"Deregister": {"id": "db-2"}})).await;
    server.stop().await;

    let server = Server::start(config(&store)).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    dies.kill().await;
    raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "evicted").await;
    server.stop().await;

    let events = history(&file).await;
    let kinds = |id: &str| told(&events, id).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    use EventKind::{Deregistered, Drained, Evicted, Flip, Registered, Replaced, Undrained, Updated};
    assert_eq!(kinds("db-1"), [Registered, Drained, Undrained, Replaced], "{events:#?}");
    assert_eq!(kinds("db-2"), [Registered, Deregistered]);
    let product = told(&events, "p-1");
    assert_eq!(kinds("p-1")[..3], [Registered, Flip, Updated], "{product:?}");
    let (last, evidence) = product.last().unwrap();
    assert!(*last == Evicted && evidence.contains("connection"), "{product:?}");
    assert_eq!(told(&events, "db-1")[3].1, "replaced by db-2 at the same address");
    let servers: std::collections::HashSet<_> = events.iter().map(|event| &event.server).collect();
    assert_eq!(servers.len(), 2, "each of the two says what it did");
}

/// The file is from the first 0.1 that was released.
#[tokio::test]
async fn a_file_of_an_earlier_release_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roundsman.db");
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/store/tests/files/sqlite-0.1.db");
    std::fs::copy(written, &file).unwrap();
    let server = Server::start(config(&format!("sqlite:{}", file.display()))).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let listed = raw.call(Raw::list("product")).await;
    let find = |id: &str| {
        let known = listed["Ok"].as_array().unwrap().iter().find(|instance| instance["id"] == id);
        known.unwrap_or_else(|| panic!("{id}: {listed}")).clone()
    };
    let full = find("product-1");
    assert_eq!((&full["tags"], &full["weight"]), (&json!(["blue", "grün"]), &json!(7)));
    assert_eq!(full["meta"], json!({"region": "eu", "owner": "team \"a\""}));
    assert_eq!(full["check"]["path"], "/alive");
    assert_eq!(find("product-3")["status"], "draining");
    let mut shop = Raw::connect_to(&server, "shop").await;
    assert_eq!(shop.get("product").await["Ok"]["id"], "product-1");
    // It is written to like any other.
    assert!(raw.call(json!({"Deregister": {"id": "product-3"}})).await.get("Ok").is_some());
    server.stop().await;
    assert!(folder.path().join("roundsman.db.before-4").exists());
    assert_eq!(told(&history(&file).await, "product-3"), [(EventKind::Deregistered, "deregistered".to_owned())]);
}

/// While the store is gone, what the rounds see is kept, and told once it is back.
#[tokio::test]
async fn what_is_seen_while_the_store_is_gone_is_told_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roundsman.db");
    let server = Server::start(config(&format!("sqlite:{}", file.display()))).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    let dies = Healthy::start().await;
    raw.register(json!({"name": "product", "id": "p-1", "address": dies.addr.to_string()})).await;
    raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "passing").await;
    // Somebody has the file open and holds its lock.
    let person = rusqlite::Connection::open(&file).unwrap();
    person.execute_batch("BEGIN IMMEDIATE").unwrap();
    dies.kill().await;
    raw.until(Raw::list("product"), |answer| answer["Ok"][0]["status"] == "evicted").await;
    person.execute_batch("COMMIT").unwrap();
    let written = async {
        let sql = "SELECT count(*) FROM history WHERE kind = 'evicted'";
        while person.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, written).await.expect("the eviction was never told");
    server.stop().await;
}

/// There is no half of an answer, and no empty one that would be taken for the truth.
#[tokio::test]
async fn a_store_that_cannot_tell_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roundsman.db");
    let server = Server::start(config(&format!("sqlite:{}", file.display()))).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.register(json!({"name": "db", "id": "db-1", "address": "10.0.0.7:1", "check": {"kind": "none"}})).await;
    let asked = json!({"History": {"query": {"service": "db", "limit": 1}}});
    let told = raw.call(asked.clone()).await;
    assert_eq!(told["Ok"]["events"][0]["kind"], "registered", "{told}");
    let other = json!({"History": {"query": {"service": "other"}}});
    assert_eq!(raw.call(other).await, json!({"Ok": {"events": [], "next": null}}));
    let backwards = json!({"since": "2026-11-21T02:00:00Z", "until": "2026-11-21T01:00:00Z"});
    let refused = raw.call(json!({"History": {"query": backwards}})).await;
    assert_eq!(refused["Err"]["Invalid"]["field"], "since", "{refused}");
    let person = rusqlite::Connection::open(&file).unwrap();
    person.execute_batch("DROP TABLE history").unwrap();
    let refused = raw.call(asked).await;
    let reason = refused["Err"]["StoreUnavailable"]["reason"].as_str().unwrap_or_else(|| panic!("{refused}"));
    assert!(reason.starts_with("the history cannot be read: "), "{reason}");
    assert_eq!(raw.get("db").await["Ok"]["id"], "db-1", "lookups do not need it");
    server.stop().await;
}
