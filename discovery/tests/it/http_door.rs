//! The HTTP door.

use serde_json::{Value, json};

use crate::support::{Raw, metric, page, server};

#[tokio::test]
async fn health_ready_and_status_answer() {
    let server = server().await;
    assert_eq!(page(&server, "/health").await, (200, "ok\n".to_owned()));
    assert_eq!(page(&server, "/ready").await, (200, "ready\n".to_owned()));
    let (code, body) = page(&server, "/api/v1/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["store"]["kind"], &status["rounds"]["interval"]), (200, &json!("memory"), &json!("5s")));
    assert_eq!(status["doors"]["rpc"], server.rpc_addr().to_string());
    let (code, body) = page(&server, "/nowhere").await;
    assert!(code == 404 && body.contains("/api/v1/status"));
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    for port in 1..=3 {
        raw.register(json!({"name": "db", "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}})).await;
    }
    raw.until(Raw::list("db"), |answer| answer["Ok"].as_array().unwrap().iter().all(|i| i["status"] == "passing"))
        .await;
    raw.get("db").await;
    raw.get("nobody").await;
    for (name, value) in [
        ("roundsman_registrations_total", 3.0),
        ("roundsman_instances{status=\"passing\"}", 3.0),
        ("roundsman_services", 1.0),
        ("roundsman_rpc_calls_total{method=\"get\"}", 2.0),
        ("roundsman_rpc_call_duration_seconds_count{method=\"register\"}", 3.0),
        ("roundsman_refusals_total{reason=\"no-such-service\"}", 1.0),
        ("roundsman_rpc_connections", 1.0),
        ("roundsman_store_up", 1.0),
        ("roundsman_brake_on", 0.0),
        ("roundsman_store_errors_total", 0.0),
    ] {
        assert_eq!(metric(&server, name).await, value, "{name}");
    }
    let (_, metrics) = page(&server, "/metrics").await;
    assert!(metrics.ends_with("# EOF\n"));
    for name in ["commits_total", "commit_batch_size_bucket", "visit_duration_seconds_count", "watches"] {
        assert!(metrics.contains(&format!("\nroundsman_{name}")), "{name}");
    }
    server.stop().await;
}
