//! Instances that nothing keeps registered: remembered for a time of their own, and never forgotten without a word.

use std::{path::Path, sync::Arc, time::Duration};

use roundsman_discovery::{Config, Server};
use roundsman_protocol::{Event, EventKind, HistoryQuery, Namespace, Registration, Timestamp, time::Clock};
use roundsman_registry::{Change, Health, Key, Record};
use roundsman_store::StoreUrl;
use serde_json::{Value, json};

use crate::support::{Healthy, Raw, config};

const HOUR: Duration = Duration::from_secs(3_600);

/// A server that forgets after a second whoever asks for nothing else.
fn hasty(store: &str) -> Config {
    Config { probation: Duration::from_secs(1), ..config(store) }
}

fn status(answer: &Value, id: &str) -> Option<String> {
    let found = answer["Ok"]["instances"].as_array()?.iter().find(|instance| instance["id"] == id)?;
    found["status"].as_str().map(str::to_owned)
}

/// What is told of an instance, oldest first.
async fn told(raw: &mut Raw, id: &str) -> Vec<(String, String)> {
    let page = raw.call(json!({"History": {"query": {"instance": id}}})).await;
    let events = page["Ok"]["events"].as_array().unwrap_or_else(|| panic!("{page}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events.iter().rev().map(|event| (text(&event["kind"]), text(&event["reason"]))).collect()
}

#[tokio::test]
async fn who_asks_for_it_outlasts_the_probation_and_is_back_when_it_answers() {
    let server = Server::start(hasty("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    let (patient, usual) = (Healthy::start().await, Healthy::start().await);
    let addr = patient.addr;
    raw.register(json!({"name": "db", "id": "patient", "address": addr.to_string(), "forget_after": "1h"})).await;
    raw.register(json!({"name": "db", "id": "usual", "address": usual.addr.to_string()})).await;
    let is =
        |id: &'static str, wanted: &'static str| move |answer: &Value| status(answer, id).as_deref() == Some(wanted);
    raw.until(Raw::list("db"), is("patient", "passing")).await;
    patient.kill().await;
    raw.until(Raw::list("db"), is("patient", "evicted")).await;
    raw.until(Raw::list("db"), is("usual", "passing")).await;
    usual.kill().await;
    // Evicted later, and gone; so the probation of the other was over long ago.
    raw.until(Raw::list("db"), is("usual", "evicted")).await;
    let listed = raw.until(Raw::list("db"), |answer| status(answer, "usual").is_none()).await;
    assert_eq!(status(&listed, "patient").as_deref(), Some("evicted"), "{listed}");
    assert_eq!(listed["Ok"]["instances"][0]["forget_after"], "1h");
    // It is visited seldom by now; whoever reports it has it visited at once.
    let back = Healthy::at(addr).await;
    assert!(raw.call(json!({"Report": {"id": "patient", "trouble": "timeout"}})).await.get("Err").is_none());
    raw.until(Raw::list("db"), is("patient", "passing")).await;
    drop(back);
    server.stop().await;
}

#[tokio::test]
async fn whoever_is_forgotten_is_told_of_with_a_reason() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    let dies = Healthy::start().await;
    let registration = json!({"name": "db", "id": "db-1", "address": dies.addr.to_string(), "forget_after": "1s"});
    raw.register(registration).await;
    raw.until(Raw::list("db"), |answer| status(answer, "db-1").as_deref() == Some("passing")).await;
    dies.kill().await;
    let gone = |answer: &Value| status(answer, "db-1").is_none();
    raw.until(Raw::list("db"), gone).await;
    let history = json!({"History": {"query": {"instance": "db-1"}}});
    raw.until(history, |page| page["Ok"]["events"][0]["kind"] == "forgotten").await;
    let events = told(&mut raw, "db-1").await;
    assert_eq!(events.last().unwrap().1, "not well again within 1s of its eviction", "{events:?}");
    let refused = raw.register(json!({"name": "db", "address": "10.0.0.7:1", "forget_after": "10000h"})).await;
    assert_eq!(refused["Err"]["Invalid"]["field"], "forget_after", "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn another_time_is_asked_for_while_it_is_evicted() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    for check in [json!({"kind": "tcp"}), json!({"kind": "ttl", "ttl": "1s"})] {
        let address = "127.0.0.1:1";
        raw.register(json!({"name": "db", "id": "db-1", "address": address, "check": check, "forget_after": "1h"}))
            .await;
        raw.until(Raw::list("db"), |answer| {
            // One that starts has time until its deadline; a drain or an update does not shorten it.
            ["evicted", "starting"].contains(&&*status(answer, "db-1").unwrap_or_default())
        })
        .await;
        if check["kind"] == "tcp" {
            raw.call(json!({"Deregister": {"id": "db-1"}})).await;
            continue;
        }
        raw.until(Raw::list("db"), |answer| status(answer, "db-1").as_deref() == Some("evicted")).await;
        let patched = raw.call(json!({"Update": {"id": "db-1", "patch": {"forget_after": "1s"}}})).await;
        assert_eq!(
            (&patched["Ok"]["outcome"], &patched["Ok"]["after"]["status"]),
            (&json!("updated"), &json!("evicted"))
        );
        raw.until(Raw::list("db"), |answer| status(answer, "db-1").is_none()).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn one_that_calls_in_is_back_when_it_does_and_goes_when_it_does_not() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    let registration = |id: &str, port: u16| json!({"name": "db", "id": id, "address": format!("10.0.0.7:{port}"), "check": {"kind": "ttl", "ttl": "1s"}});
    let mut patient = registration("patient", 1);
    patient["forget_after"] = json!("1h");
    raw.register(patient).await;
    raw.register(registration("usual", 2)).await;
    let is =
        |id: &'static str, wanted: &'static str| move |answer: &Value| status(answer, id).as_deref() == Some(wanted);
    for _ in 0..2 {
        raw.until(Raw::list("db"), is("patient", "evicted")).await;
        assert_eq!(raw.call(json!({"Renew": {"id": "patient"}})).await["Ok"], Value::Null);
        raw.until(Raw::list("db"), is("patient", "passing")).await;
    }
    raw.until(Raw::list("db"), is("usual", "evicted")).await;
    assert_eq!(raw.call(json!({"Renew": {"id": "usual"}})).await["Err"]["NotRegistered"]["id"], "usual");
    let history = json!({"History": {"query": {"instance": "patient"}}});
    raw.until(history, |page| page["Ok"]["events"].as_array().is_some_and(|events| events.len() >= 5)).await;
    let kinds: Vec<String> = told(&mut raw, "patient").await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds[..4], ["registered", "evicted", "reinstated", "evicted"]);
    server.stop().await;
}

/// Evicted so long ago, by a server that ran before.
fn evicted(id: &str, address: &str, ago: Duration, forget_after: Duration) -> Arc<Record> {
    let now = Clock::system().now();
    let then = Timestamp::from_millis(now.as_millis() - u64::try_from(ago.as_millis()).unwrap());
    let new = Registration::new("db".parse().unwrap(), address.parse().unwrap());
    let new = Registration { forget_after: Some(forget_after), ..new };
    let key = Key { namespace: Namespace::default(), id: id.parse().unwrap() };
    let record = Record::registered(&key, &new, then.as_millis(), then);
    Arc::new(record.seen(Health::Evicted, "GET /health: connection refused".into(), "before".into(), then))
}

async fn history(file: &Path, id: &str) -> Vec<Event> {
    let store = StoreUrl::sqlite(file).open(Duration::from_secs(60), "a reader");
    let query = HistoryQuery { instance: Some(id.parse().unwrap()), ..HistoryQuery::default() };
    store.history(&Namespace::default(), &query).await.unwrap().events
}

#[tokio::test]
async fn a_restart_neither_forgets_early_nor_brings_back_whom_it_was_to_forget() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roundsman.db");
    let (waits, late) = (Healthy::start().await, Healthy::start().await);
    let records = [
        evicted("waits", &waits.addr.to_string(), HOUR / 2, HOUR),
        // It answers by now, but its time was over while no server ran.
        evicted("late", &late.addr.to_string(), 2 * HOUR, HOUR),
    ];
    let store = StoreUrl::sqlite(&file).open(Duration::from_secs(60), "before");
    store.load().await.unwrap();
    let put = |record: &Arc<Record>| Change::Asked { record: Arc::clone(record), expected: 0 };
    store.commit(&records.each_ref().map(put), &[]).await.unwrap();
    drop(store);

    let server = Server::start(config(&format!("sqlite:{}", file.display()))).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.until(Raw::list("db"), |answer| status(answer, "late").is_none()).await;
    raw.until(Raw::list("db"), |answer| status(answer, "waits").as_deref() == Some("passing")).await;
    server.stop().await;
    let kinds = |events: Vec<Event>| events.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(history(&file, "late").await), [EventKind::Forgotten]);
    assert_eq!(kinds(history(&file, "waits").await), [EventKind::Reinstated]);

    let server = Server::start(config(&format!("sqlite:{}", file.display()))).await.unwrap();
    let listed = Raw::connect_today(&server).await.call(Raw::list("db")).await;
    assert_eq!((status(&listed, "late"), status(&listed, "waits").as_deref()), (None, Some("passing")));
    server.stop().await;
}

#[tokio::test]
async fn an_instance_that_starts_shows_what_its_last_visit_met() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect_today(&server).await;
    raw.register(json!({"name": "db", "id": "db-1", "address": "127.0.0.1:1"})).await;
    let told = raw
        .until(Raw::list("db"), |answer| {
            let instance = &answer["Ok"]["instances"][0];
            instance["status"] == "starting" && instance["reason"] != "registered"
        })
        .await;
    assert_eq!(told["Ok"]["instances"][0]["reason"], "GET /health: connection refused", "{told}");
    server.stop().await;
}
