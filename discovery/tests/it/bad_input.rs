//! What bad input gets: a refusal that names the field and the rule, or a closed connection with a counted reason; and nobody else notices.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{Raw, metric_reaches, server};

fn registration(field: &str, value: Value) -> Value {
    let mut registration = json!({"name": "db", "address": "10.0.0.7:5432", "check": {"kind": "none"}});
    registration[field] = value;
    registration
}

#[tokio::test]
async fn a_refusal_names_the_field_and_the_rule() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!(""))).collect();
    let cases = [
        ("name", json!("no spaces"), "name", "a-z 0-9"),
        ("name", json!(""), "name", "1 to 63"),
        ("id", json!("a/b"), "id", "A-Z"),
        ("address", json!("10.0.0.7:0"), "address", "port must not be 0"),
        ("address", json!("0.0.0.0:80"), "address", "unspecified"),
        ("address", json!("[::]:80"), "address", "unspecified"),
        ("address", json!("169.254.169.254:80"), "address", "link-local"),
        ("address", json!("[fe80::1]:80"), "address", "link-local"),
        ("address", json!("[::ffff:169.254.169.254]:80"), "address", "link-local"),
        ("address", json!("224.0.0.1:80"), "address", "multicast"),
        ("address", json!("nonsense"), "address", "HOST:PORT"),
        ("check", json!({"kind": "http", "path": "health"}), "check.path", "begin with /"),
        ("check", json!({"kind": "ttl", "ttl": "999ms"}), "check.ttl", "between 1s and 24h"),
        ("check", json!({"kind": "ttl", "ttl": "25h"}), "check.ttl", "between 1s and 24h"),
        ("check", json!({"kind": "ttl"}), "check.ttl", "needs a ttl"),
        ("check", json!({"kind": "smoke"}), "smoke", "unknown variant"),
        ("meta", json!(many), "meta", "at most 64 entries, got 65"),
        ("meta", json!({"k": "v".repeat(16_384)}), "meta", "at most 16384 bytes"),
        ("weight", json!(0), "weight", "between 1 and 10000"),
        ("colour", json!("blue"), "colour", "unknown field"),
    ];
    for (field, value, named, rule) in cases {
        let answer = raw.register(registration(field, value.clone())).await["Err"].to_string();
        assert!(answer.contains(named) && answer.contains(rule), "{field}={value}: {answer}");
    }
    let unknown = raw.call(json!({"Drain": {"id": "nobody", "on": true}})).await;
    assert_eq!(unknown, json!({"Err": {"NotRegistered": {"id": "nobody"}}}));
    let answer = raw.call(json!({"Fetch": {}})).await["Err"].to_string();
    assert!(answer.contains("unknown variant `Fetch`"), "{answer}");
    assert_eq!(
        raw.register(registration("weight", json!(3))).await["Ok"]["outcome"],
        "created",
        "the connection goes on"
    );
    server.stop().await;
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_refused_with_a_sentence() {
    let server = server().await;
    let mut raw = Raw::silent(&server).await;
    raw.stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let refusal = raw.receive().await.unwrap();
    assert!(refusal["error"].as_str().unwrap().contains("must be a handshake"), "{refusal}");
    assert!(raw.receive().await.is_none(), "and the connection is closed");
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"handshake-garbage\"}", 1.0).await;

    for (hello, sentence) in [
        (json!({"roundsman": 9, "codec": "json"}), "versions 1 to 3"),
        (json!({"roundsman": 1}), "missing field `codec`"),
        (json!({"roundsman": 1, "codec": "xml"}), "xml"),
        (json!({"roundsman": 1, "codec": "json", "namespace": "a b"}), "namespace"),
        (json!([]), "must be a handshake"),
    ] {
        let mut raw = Raw::silent(&server).await;
        raw.send(&hello).await;
        let refusal = raw.receive().await.unwrap();
        assert_eq!(refusal["ok"], false);
        assert!(refusal["error"].as_str().unwrap().contains(sentence), "{refusal}");
        assert!(raw.receive().await.is_none());
    }
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"handshake-refused\"}", 5.0).await;
    server.stop().await;
}

#[tokio::test]
async fn oversized_and_garbled_frames_close_their_connection_and_no_other() {
    let server = server().await;
    let mut bystander = Raw::connect(&server).await;
    let mut raw = Raw::connect(&server).await;
    raw.stream.write_u32(1_048_577).await.unwrap();
    let sentence = raw.receive().await.unwrap().to_string();
    assert!(sentence.contains("at most 1048576 bytes") && sentence.contains("--max-frame"), "{sentence}");
    assert!(raw.receive().await.is_none(), "and the connection is closed");
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"oversized-frame\"}", 1.0).await;
    for (garbage, what) in [
        (&b"not json"[..], "expected"),
        (b"{}", "expected value"),
        (b"", "EOF"),
        (b"\xff\xff\xff\xff", "expected value"),
        (b"{\"Request\":{\"id\":-1}}", "integer `-1`"),
        (b"{\"Request\":{\"id\":1,\"id\":2,\"message\":{\"Services\":{}}}}", "duplicate field `id`"),
    ] {
        let mut raw = Raw::connect(&server).await;
        raw.send_bytes(garbage).await;
        let sentence = raw.receive().await.unwrap();
        assert_eq!(sentence["request_id"], u64::MAX, "{sentence}");
        let detail = sentence["message"]["Err"]["detail"].as_str().unwrap();
        assert!(detail.starts_with("this is no message: ") && detail.contains(what), "{detail}");
        assert!(raw.receive().await.is_none(), "{garbage:?}");
    }
    metric_reaches(&server, "roundsman_rpc_closed_total{reason=\"garbage\"}", 6.0).await;
    assert_eq!(bystander.call(json!({"Services": {}})).await, json!({"Ok": []}));
    server.stop().await;
}

#[tokio::test]
async fn an_absurd_deadline_or_wait_is_served_and_not_overflowed() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    let request = json!({"Request": {"context": {"deadline": {"secs": u64::MAX, "nanos": 0}}, "id": 1, "message": {"Services": {}}}});
    raw.send(&request).await;
    assert_eq!(raw.receive().await.unwrap()["request_id"], 1);
    let watch = json!({"Watch": {"query": {}, "after": null, "wait": "584942417years"}});
    assert_eq!(raw.call(watch).await["Ok"]["snapshot"], true);
    server.stop().await;
}
