//! Large answers: shared, bounded, and no burden to anybody but those who ask for them.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::support::{Raw, SOON, config, metric_reaches};

/// A server with so many instances of `db`, with that much metadata each.
async fn server_with(count: u16, filling: usize, config: Config) -> Server {
    let server = Server::start(config).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    for port in 1..=count {
        let meta = json!({"filling": "x".repeat(filling)});
        let address = format!("10.0.0.7:{port}");
        raw.begin(json!({"Register": {"registration": {
            "name": "db", "id": format!("db-{port:05}"), "address": address, "meta": meta, "check": {"kind": "none"}
        }}}))
        .await;
        assert!(raw.receive().await.unwrap()["message"]["Ok"]["Register"]["Ok"].is_object());
    }
    server
}

fn list() -> Value {
    json!({"List": {"query": {"services": ["db"]}}})
}

fn watch(after: &Value) -> Value {
    json!({"Watch": {"query": {"services": ["db"]}, "after": after, "wait": "60s"}})
}

#[tokio::test]
async fn a_large_list_and_snapshot_say_what_is_registered_and_keep_up_with_changes() {
    let server = server_with(500, 10, config("memory:")).await;
    let mut raw = Raw::connect(&server).await;
    let listed = raw.call(list()).await;
    assert_eq!(listed["Ok"].as_array().unwrap().len(), 500);
    let first = raw.call(watch(&json!(null))).await["Ok"].clone();
    assert_eq!((first["snapshot"].as_bool(), first["instances"].as_array().unwrap().len()), (Some(true), 500));
    raw.call(json!({"Deregister": {"id": "db-00007"}})).await;
    let listed = raw.call(list()).await;
    assert_eq!(listed["Ok"].as_array().unwrap().len(), 499, "an answer of a moment ago is not the answer now");
    let update = raw.call(watch(&first["cursor"])).await["Ok"].clone();
    assert_eq!((update["snapshot"].as_bool(), &update["removed"][0]["id"]), (Some(false), &json!("db-00007")));
    server.stop().await;
}

#[tokio::test]
async fn many_unread_lists_are_bounded_and_everybody_else_is_served() {
    let server = server_with(400, 8_000, Config { max_memory: Some(64 << 20), ..config("memory:") }).await;
    // Each asks for something of its own, so that nothing is shared: 3 MB each, of a budget of 8 MB.
    let mut unread = Vec::new();
    for n in 0..40 {
        let mut raw = Raw::connect(&server).await;
        let services = ["db".to_owned(), format!("other-{n}")];
        raw.begin(json!({"List": {"query": {"services": services}}})).await;
        unread.push(raw);
    }
    let mut told = 0;
    for raw in &mut unread[10..] {
        let mut length = [0; 4];
        timeout(SOON, raw.stream.read_exact(&mut length)).await.unwrap().unwrap();
        if u32::from_be_bytes(length) < 1_000 {
            told += 1;
        }
    }
    assert!(told > 0, "over budget the caller is told");
    let mut good = Raw::connect(&server).await;
    assert_eq!(good.get("db").await["Ok"]["name"], "db");
    let mut tenant = Raw::connect_to(&server, "shop").await;
    assert_eq!(tenant.call(json!({"Services": {}})).await, json!({"Ok": []}));
    let status = good.call(json!({"Status": {}})).await["Ok"].clone();
    assert!(status["memory"]["refused"].as_u64() > Some(0), "{}", status["memory"]);
    drop(unread);
    good.until(list(), |answer| answer["Ok"].as_array().is_some_and(|all| all.len() == 400)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_steady_reader_of_a_large_answer_gets_all_of_it() {
    let server = server_with(200, 15_000, config("memory:")).await;
    let mut raw = Raw::connect(&server).await;
    raw.begin(list()).await;
    let mut read = 0;
    let mut length = [0; 4];
    raw.stream.read_exact(&mut length).await.unwrap();
    let length = u32::from_be_bytes(length) as usize;
    let mut piece = vec![0; 64 * 1_024];
    while read < length {
        // Slower than the server writes: most of the time it waits for us.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let most = piece.len().min(length - read);
        read += timeout(SOON, raw.stream.read(&mut piece[..most])).await.unwrap().unwrap();
    }
    assert_eq!(raw.get("db").await["Ok"]["name"], "db", "and the connection goes on");
    server.stop().await;
}

#[tokio::test]
async fn lists_without_pause_on_one_connection_leave_others_their_turn() {
    let server = server_with(300, 10, config("memory:")).await;
    let mut greedy = Raw::connect(&server).await;
    for _ in 0..200 {
        greedy.begin(list()).await;
    }
    // Nothing of it is read: the answers fill the sockets, and the connection waits.
    let mut other = Raw::connect(&server).await;
    for _ in 0..50 {
        assert_eq!(other.get("db").await["Ok"]["name"], "db");
    }
    for _ in 0..200 {
        assert_eq!(greedy.receive().await.unwrap()["message"]["Ok"]["List"]["Ok"].as_array().unwrap().len(), 300);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_frame_that_begins_and_is_large_is_accounted_for() {
    let server = Server::start(Config { max_memory: Some(32 << 20), ..config("memory:") }).await.unwrap();
    let mut begun = Vec::new();
    // 1 MB each of a budget of 8 MB, of which a namespace gets three quarters.
    for _ in 0..20 {
        let mut raw = Raw::connect(&server).await;
        raw.send_begin(1_000_000, &[b' '; 100]).await;
        begun.push(raw);
    }
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"max-memory\"}", 10.0).await;
    let mut answers: FuturesUnordered<_> = begun.iter_mut().map(Raw::receive_late).collect();
    for _ in 0..10 {
        let answer = timeout(SOON, answers.next()).await.unwrap().unwrap().unwrap();
        assert!(answer["message"]["Err"]["detail"].as_str().unwrap().contains("--max-memory"), "{answer}");
    }
    drop(answers);
    assert_eq!(Raw::connect_to(&server, "shop").await.call(json!({"Services": {}})).await, json!({"Ok": []}));
    server.stop().await;
}

#[tokio::test]
async fn queries_have_the_limits_of_registrations() {
    let server = server_with(3, 10, config("memory:")).await;
    let mut raw = Raw::connect(&server).await;
    let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
    let names: Vec<String> = (0..1_025).map(|n| format!("n{n}")).collect();
    for (query, rule) in [
        (json!({"tags": many}), "at most 64 tags"),
        (json!({"tags": ["x".repeat(129)]}), "1 to 128 bytes"),
        (json!({"zone": ""}), "1 to 128 bytes"),
        (json!({"meta": {"k": "v".repeat(16_384)}}), "16384 bytes"),
        (json!({"services": names}), "at most 1024"),
        (json!({"tags": vec!["a"; 250_000]}), "at most 64 tags"),
        (json!({"services": vec!["a"; 100_000]}), "at most 1024 services"),
    ] {
        for request in
            [json!({"List": {"query": query}}), json!({"Watch": {"query": query, "after": null, "wait": "1s"}})]
        {
            let refusal = raw.call(request).await["Err"].to_string();
            assert!(refusal.contains(rule), "{refusal}");
        }
    }
    let twice = json!({"List": {"query": {"services": ["db", "db"], "tags": []}}});
    assert_eq!(raw.call(twice).await["Ok"].as_array().unwrap().len(), 3, "none is listed twice");
    server.stop().await;
}

/// Waits for the beginning of the next answer, and tells how long it is.
async fn length_of_next(raw: &mut Raw) -> u32 {
    let mut length = [0; 4];
    timeout(SOON, raw.stream.read_exact(&mut length)).await.unwrap().unwrap();
    u32::from_be_bytes(length)
}

#[tokio::test]
async fn unread_answers_of_every_kind_are_bounded() {
    let limits = Config { max_memory: Some(64 << 20), max_instances_per_connection: 10_000, ..config("memory:") };
    let server = Server::start(limits).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    for port in 1..=3_000 {
        let address = format!("10.0.0.7:{port}");
        let name = format!("a-service-with-a-long-name-so-that-much-has-to-be-written-{port}");
        raw.begin(json!({"Register": {"registration": {"name": name, "address": address, "check": {"kind": "none"}}}}))
            .await;
        assert!(raw.receive().await.unwrap()["message"]["Ok"]["Register"]["Ok"].is_object());
    }
    // Half a megabyte each, of which a namespace may have six.
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(&server).await;
        raw.begin(json!({"Services": {}})).await;
        unread.push(raw);
    }
    let mut told = 0;
    for raw in &mut unread {
        told += usize::from(length_of_next(raw).await < 1_000);
    }
    assert!(told > 0, "over budget the caller is told");
    drop(unread);
    raw.until(json!({"Services": {}}), |answer| answer["Ok"].as_array().is_some_and(|all| all.len() == 3_000)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_few_connections_do_not_take_every_turn() {
    let server = server_with(1_000, 10, config("memory:")).await;
    let mut tenant = Raw::connect_to(&server, "shop").await;
    for port in 1..=100 {
        tenant.register(json!({"name": "db", "address": format!("10.0.0.8:{port}"), "check": {"kind": "none"}})).await;
    }
    let mut greedy = Vec::new();
    for n in 0..6 {
        let mut raw = Raw::connect(&server).await;
        for m in 0..1_000 {
            let services = ["db".to_owned(), format!("other-{n}-{m}")];
            raw.begin(json!({"List": {"query": {"services": services}}})).await;
        }
        greedy.push(raw);
    }
    for _ in 0..3 {
        assert_eq!(tenant.call(list()).await["Ok"].as_array().map(Vec::len), Some(100));
    }
    drop(greedy);
    server.stop().await;
}
