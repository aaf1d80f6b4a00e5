//! Who calls whom.

use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};

use crate::support::{Raw, SOON, config, metric, page, server};

/// A client that says which service it is.
async fn named(server: &Server, service: &str, namespace: &str) -> Raw {
    let mut raw = Raw::silent(server).await;
    raw.send(&json!({"roundsman": 1, "codec": "json", "service": service, "namespace": namespace})).await;
    assert_eq!(raw.receive().await.unwrap()["ok"], true);
    raw
}

async fn graph(raw: &mut Raw) -> Value {
    raw.call(json!({"Graph": {}})).await["Ok"].clone()
}

/// Caller, callee, lookups and watching of each edge.
fn edges(graph: &Value) -> Vec<(&str, &str, u64, u64)> {
    let edges = graph["edges"].as_array().unwrap();
    edges.iter().map(edge).collect()
}

fn edge(edge: &Value) -> (&str, &str, u64, u64) {
    let text = |field: &str| edge[field].as_str().unwrap();
    let number = |field: &str| edge[field].as_u64().unwrap();
    (text("caller"), text("callee"), number("lookups"), number("watching"))
}

#[tokio::test]
async fn lookups_and_watches_of_named_callers_are_counted() {
    let server = server().await;
    let (mut anonymous, mut order) = (Raw::connect(&server).await, named(&server, "order", "default").await);
    anonymous.register(json!({"name": "product", "address": "10.0.0.7:1", "check": {"kind": "none"}})).await;
    anonymous.until(json!({"Get": {"service": "product"}}), |answer| answer.get("Ok").is_some()).await;
    order.get("product").await;
    order.get("prodcut").await;
    order.call(json!({"List": {"query": {"services": ["product"]}}})).await;
    order.call(json!({"List": {"query": {}}})).await;
    let counted = graph(&mut anonymous).await;
    let expected = [("order", "*", 1, 0), ("order", "prodcut", 1, 0), ("order", "product", 2, 0)];
    assert_eq!(edges(&counted), expected);
    assert_eq!((&counted["services"], &counted["namespace"]), (&json!(["product"]), &json!("default")));
    assert_eq!(metric(&server, "roundsman_graph_edges").await, 3.0);

    let watch = |after: &Value| json!({"Watch": {"query": {"services": ["product"]}, "after": after, "wait": "60s"}});
    let mut cursor = order.call(watch(&json!(null))).await["Ok"]["cursor"].clone();
    for port in 2..5 {
        let waiting = order.begin(watch(&cursor)).await;
        assert_eq!(
            edges(&graph(&mut anonymous).await)[2],
            ("order", "product", 2, 1),
            "once, however often it repeats"
        );
        anonymous
            .register(json!({"name": "product", "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}}))
            .await;
        let answer = order.receive().await.unwrap();
        assert_eq!(answer["request_id"], waiting);
        cursor = answer["message"]["Ok"]["Watch"]["Ok"]["cursor"].clone();
    }
    drop(order);
    let left = async {
        while edges(&graph(&mut anonymous).await)[2].3 > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, left).await.expect("a connection that ended still counts as watching");
    server.stop().await;
}

#[tokio::test]
async fn each_tenant_sees_its_own_graph_and_the_http_door_shows_the_same() {
    let server = server().await;
    let (mut shop, mut other) = (named(&server, "order", "shop").await, named(&server, "order", "other").await);
    shop.get("product").await;
    other.get("secret").await;
    assert_eq!(edges(&graph(&mut shop).await), [("order", "product", 1, 0)]);
    let (code, body) = page(&server, "/api/v1/graph?namespace=shop").await;
    let graph: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, edges(&graph)), (200, vec![("order", "product", 1, 0)]));
    let (code, body) = page(&server, "/api/v1/graph").await;
    let graph: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &graph["namespace"], &graph["edges"]), (200, &json!("default"), &json!([])));
    for wrong in ["?namespace=a%20b", "?tenant=shop"] {
        let (code, body) = page(&server, &format!("/api/v1/graph{wrong}")).await;
        assert!(code == 400 && body.contains("?namespace=NAME"), "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn made_up_names_end_at_the_limit() {
    let server = Server::start(Config { max_edges: 3, ..config("memory:") }).await.unwrap();
    let mut rogue = named(&server, "rogue", "default").await;
    for n in 0..10 {
        rogue.get(&format!("made-up-{n}")).await;
    }
    let graph = graph(&mut rogue).await;
    assert_eq!((edges(&graph).len(), &graph["unrecorded"]), (3, &json!(7)));
    assert_eq!(metric(&server, "roundsman_graph_unrecorded_total").await, 7.0);
    server.stop().await;
}
