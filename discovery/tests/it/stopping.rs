//! A stopping server answers what it was asked.

use serde_json::json;

use crate::support::{Raw, metric_reaches, server};

#[tokio::test]
async fn calls_in_flight_are_answered_and_watches_end() {
    let server = server().await;
    let (rpc, http) = (server.rpc_addr(), server.http_addr());
    let mut raw = Raw::connect(&server).await;
    let watch = |after| json!({"Watch": {"query": {}, "after": after, "wait": "60s"}});
    let cursor = raw.call(watch(json!(null))).await["Ok"]["cursor"].clone();
    let waiting = raw.begin(watch(cursor)).await;
    metric_reaches(&server, "roundsman_watches", 1.0).await;
    let stopping = server.stop();
    let answered = async {
        let answer = raw.receive().await.expect("the watch is answered");
        assert_eq!(answer["request_id"], waiting);
        assert!(raw.receive().await.is_none(), "then the server hangs up");
    };
    tokio::join!(stopping, answered);
    assert!(tokio::net::TcpStream::connect(rpc).await.is_err(), "nobody listens any more");
    assert!(tokio::net::TcpStream::connect(http).await.is_err());
}
