//! JSON sessions written by hand, and the very script that the guide shows.

use std::process::Command;

use roundsman_protocol::{Check, Registration, v2};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Healthy, Raw, server};

#[tokio::test]
async fn registers_is_visited_and_is_found() {
    let server = server().await;
    let product = Healthy::start().await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(raw.get("product").await, json!({"Err": {"NoSuchService": {"service": "product"}}}));
    let answer =
        raw.register(json!({"name": "Product", "address": product.addr.to_string(), "meta": {"k": "v"}})).await;
    assert_eq!(answer["Ok"]["outcome"], "created");
    let id = answer["Ok"]["id"].as_str().unwrap().to_owned();
    let got =
        raw.until(json!({"Get": {"service": "product"}}), |answer| answer.get("Ok").is_some()).await["Ok"].clone();
    assert_eq!(got["id"], id);
    assert_eq!(got["status"], "passing");
    assert_eq!(got["address"], product.addr.to_string());
    assert_eq!(
        got["check"],
        json!({"kind": "http", "path": "/health", "interval": "5s", "timeout": "5s", "ttl": null})
    );
    assert!(got["reason"].as_str().unwrap().starts_with("GET /health: 200 in"), "{got}");
    assert!(got["since"].as_str().unwrap().ends_with('Z'));

    assert_eq!(raw.call(json!({"Drain": {"id": id, "on": true}})).await, json!({"Ok": null}));
    assert_eq!(raw.get("product").await["Err"]["NonePassing"]["registered"], 1);
    assert_eq!(raw.call(json!({"Drain": {"id": id, "on": false}})).await, json!({"Ok": null}));
    assert_eq!(raw.get("product").await["Ok"]["id"], id);
    // People who write JSON by hand leave out what is empty.
    for services in [json!({"Services": {}}), json!({"Services": null}), json!("Services")] {
        assert_eq!(raw.call(services).await["Ok"][0]["passing"], 1);
    }
    assert_eq!(raw.call(json!({"Renew": {"id": id}})).await, json!({"Ok": null}));
    assert_eq!(raw.call(json!({"Report": {"id": id, "trouble": "timeout"}})).await, json!({"Ok": null}));
    assert_eq!(raw.call(json!({"Status": {}})).await["Ok"]["ready"], true);
    assert_eq!(raw.call(json!({"Deregister": {"id": id}})).await, json!({"Ok": null}));
    assert_eq!(raw.call(json!({"Deregister": {"id": id}})).await, json!({"Err": {"NotRegistered": {"id": id}}}));
    server.stop().await;
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_the_same_address_leaves_no_ghost() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    let mut registration = Registration::new("db".parse().unwrap(), "10.0.0.7:5432".parse().unwrap());
    registration.id = Some("db-1".parse().unwrap());
    registration.check = Check::none();
    let written = serde_json::to_value(<v2::Registration>::try_from(registration).unwrap()).unwrap();
    assert_eq!(raw.register(written.clone()).await["Ok"]["outcome"], "created");
    raw.until(json!({"Get": {"service": "db"}}), |answer| answer.get("Ok").is_some()).await;
    let watch = |after| json!({"Watch": {"query": {}, "after": after, "wait": "0ms"}});
    let cursor = raw.call(watch(json!(null))).await["Ok"]["cursor"].clone();
    assert_eq!(raw.register(written.clone()).await["Ok"]["outcome"], "unchanged");
    assert_eq!(raw.call(watch(cursor.clone())).await["Ok"]["cursor"], cursor, "no revision");
    let mut changed = written.clone();
    changed["version"] = json!("2");
    assert_eq!(raw.register(changed).await["Ok"]["outcome"], "updated");
    assert_eq!(raw.get("db").await["Ok"]["version"], "2", "in place, without a gap");
    let mut restarted = written;
    restarted["id"] = json!("db-2");
    assert_eq!(raw.register(restarted).await["Ok"]["outcome"], "created");
    let all = raw.call(Raw::list("db")).await;
    assert_eq!(all["Ok"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(all["Ok"][0]["id"], "db-2");
    server.stop().await;
}

#[tokio::test]
async fn namespaces_never_meet() {
    let server = server().await;
    let mut a = Raw::connect_to(&server, "a").await;
    let mut b = Raw::connect_to(&server, "b").await;
    for raw in [&mut a, &mut b] {
        let registration = json!({"name": "db", "id": "db-1", "address": "10.0.0.7:5432", "check": {"kind": "none"}});
        assert_eq!(raw.register(registration).await["Ok"]["outcome"], "created");
    }
    assert_eq!(a.call(json!({"Deregister": {"id": "db-1"}})).await, json!({"Ok": null}));
    assert!(a.get("db").await["Err"].get("NoSuchService").is_some());
    b.until(json!({"Get": {"service": "db"}}), |answer| answer["Ok"]["namespace"] == "b").await;
    server.stop().await;
}

#[tokio::test]
async fn the_script_in_the_guide_registers_and_gets() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rpc.md")).unwrap();
    let script =
        guide.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the guide has a script");
    let server = server().await;
    let product = Healthy::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.py");
    std::fs::write(&path, script).unwrap();
    let (rpc, address) = (server.rpc_addr().to_string(), product.addr.to_string());
    let run =
        tokio::task::spawn_blocking(move || Command::new("python3").arg(path).args([rpc, address]).output().unwrap());
    let output = run.await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains(&format!("\"address\":\"{}\"", product.addr)), "{printed}");
    server.stop().await;
}

#[tokio::test]
async fn an_address_and_a_name_for_it_are_one_place() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    let at = |id: &str, address: &str| json!({"name": "db", "id": id, "address": address, "check": {"kind": "none"}});
    raw.register(at("one", "127.0.0.1:5432")).await;
    raw.register(at("other-port", "127.0.0.1:5433")).await;
    for (id, address) in [("two", "localhost:5432"), ("three", "[::ffff:127.0.0.1]:5432"), ("four", "localhost:5432")] {
        raw.register(at(id, address)).await;
        let listed = raw.call(Raw::list("db")).await;
        let ids: Vec<&str> = listed["Ok"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert!(ids.len() == 2 && ids.contains(&id) && ids.contains(&"other-port"), "{id}: {ids:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_in_one_piece_is_answered_also_when_nothing_more_will_come() {
    let server = server().await;
    let mut raw = Raw::silent(&server).await;
    let mut session = Vec::new();
    let frames = [
        json!({"roundsman": 2, "codec": "json"}),
        json!({"Request": {"id": 1, "message": {"Services": {}}}}),
        json!({"Request": {"id": 2, "message": {"Status": {}}}}),
        json!({"Request": {"id": 3, "message": {"Get": {"service": "nobody"}}}}),
    ];
    for frame in frames {
        let frame = frame.to_string();
        session.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        session.extend_from_slice(frame.as_bytes());
    }
    raw.stream.write_all(&session).await.unwrap();
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.receive().await.unwrap()["ok"], true);
    let mut answered = Vec::new();
    while let Some(answer) = raw.receive().await {
        answered.push(answer["request_id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3], "and then the server hangs up, too");
    server.stop().await;
}
