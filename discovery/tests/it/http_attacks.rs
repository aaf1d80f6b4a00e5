//! Hostile and slow callers of the HTTP door: whatever they do, `/health` answers, and so does
//! everything else before long.

use std::time::Duration;

use roundsman_discovery::{Config, Server};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{Raw, SOON, config, metric, metric_reaches, page};

/// A connection into which the kernel takes little that is not read.
async fn narrow(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(server.http_addr()).await.unwrap()
}

/// Asks for pages without end and reads nothing, until the server reads no more either.
async fn stuff(server: &Server) -> TcpStream {
    let mut stream = narrow(server).await;
    let requests = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    // It ends as soon as the server reads no more, or has had enough.
    while let Ok(Ok(())) = timeout(Duration::from_millis(300), stream.write_all(requests.as_bytes())).await {}
    stream
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ended = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("neither answered nor hung up");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn clients_that_pipeline_and_do_not_read_shut_nobody_out() {
    let server = Server::start(Config { max_http_connections: 8, ..config("memory:") }).await.unwrap();
    let mut unread = Vec::new();
    for greedy in futures::future::join_all((0..8).map(|_| stuff(&server))).await {
        unread.push(greedy);
        assert_eq!(page(&server, "/health").await, (200, "ok\n".to_owned()));
    }
    // All seats are taken by those who do not read: what is essential is answered at once, and the
    // rest once one gave way.
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(page(&server, path).await.0, 200, "{path}");
    }
    let answered = async {
        while page(&server, "/api/v1/status").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, answered).await.expect("those who do not read give way");
    server.stop().await;
}

#[tokio::test]
async fn six_hundred_slow_heads_shut_nobody_out() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut slow = Vec::new();
    for nth in 0..600 {
        let mut stream = TcpStream::connect(server.http_addr()).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
        if nth % 100 == 99 {
            assert_eq!(page(&server, "/health").await.0, 200);
            assert_eq!(page(&server, "/api/v1/status").await.0, 200);
        }
    }
    metric_reaches(&server, "roundsman_http_closed_total{reason=\"gave-way\"}", 88.0).await;
    assert!(metric(&server, "roundsman_http_connections").await <= 512.0);
    let mut first = slow.remove(0);
    let words = read_to_end(&mut first).await;
    assert!(words.starts_with("HTTP/1.1 503 ") && words.contains("--max-http-connections"), "{words}");
    server.stop().await;
}

/// Everybody is being answered and reads on: nobody gives way, and a new one is told so in a
/// sentence.
#[tokio::test]
async fn beyond_the_limit_only_what_is_essential_is_answered() {
    let server = Server::start(Config { max_http_connections: 1, ..config("memory:") }).await.unwrap();
    let reader = stuff(&server).await;
    let (mut reading, mut writing) = reader.into_split();
    let on = async {
        let mut chunk = [0; 1_024];
        while reading.read(&mut chunk).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let more = async {
        while writing.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let refused = async {
        loop {
            let (code, body) = page(&server, "/api/v1/status").await;
            assert_eq!(page(&server, "/health").await.0, 200);
            if code == 503 {
                return body;
            }
        }
    };
    let body = tokio::select! {
        body = timeout(SOON, refused) => body.expect("the one seat is taken by somebody who reads"),
        () = async { tokio::join!(on, more); } => panic!("a client that reads is not cut off"),
    };
    assert!(body.contains("--max-http-connections (1)") && body.contains("/health"), "{body}");
    assert!(metric(&server, "roundsman_refusals_total{reason=\"max-http-connections\"}").await >= 1.0);
    server.stop().await;
}

/// Registers so many services that the status is larger than what kernels buffer.
async fn large(server: &Server) {
    let mut raw = Raw::connect(server).await;
    for nth in 0..6_000_u32 {
        let address = format!("10.0.{}.{}:80", nth / 250, nth % 250 + 1);
        let name = format!("service-with-a-name-that-is-as-long-as-they-come-{nth:06}");
        raw.begin(json!({"Register": {"registration": {"name": name, "address": address, "check": {"kind": "none"}}}}))
            .await;
        if nth % 100 == 99 {
            for _ in 0..100 {
                let answer = raw.receive().await.unwrap();
                assert_eq!(answer["message"]["Ok"]["Register"]["Ok"]["outcome"], "created", "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_steady_slow_reader_gets_all_of_a_large_status_and_a_stalled_one_is_cut_off() {
    let server = Server::start(config("memory:")).await.unwrap();
    large(&server).await;
    let ask = b"GET /api/v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (mut steady, mut stalled) = (narrow(&server).await, narrow(&server).await);
    steady.write_all(ask).await.unwrap();
    stalled.write_all(ask).await.unwrap();
    // Longer than anybody may stall, and some of it all the time.
    let reading = async {
        let (mut answer, mut chunk) = (Vec::new(), vec![0; 16 * 1_024]);
        loop {
            match steady.read(&mut chunk).await.unwrap() {
                0 => return answer,
                read => answer.extend(&chunk[..read]),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let answer = timeout(SOON * 6, reading).await.expect("the answer ends");
    let answer = String::from_utf8(answer).unwrap();
    let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(status["namespaces"][0]["services"].as_array().unwrap().len(), 6_000);
    assert!(answer.len() > 800_000, "{}", answer.len());
    metric_reaches(&server, "roundsman_http_closed_total{reason=\"unread\"}", 1.0).await;
    assert!(read_to_end(&mut stalled).await.len() < answer.len());
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_with_a_sentence_and_counted() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut slow = TcpStream::connect(server.http_addr()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nx: y\r\n").await.unwrap();
    let words = read_to_end(&mut slow).await;
    assert!(words.starts_with("HTTP/1.1 408 ") && words.contains("too long"), "{words}");
    metric_reaches(&server, "roundsman_http_closed_total{reason=\"head-timeout\"}", 1.0).await;

    for (garbage, code) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
        (b"hello\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(server.http_addr()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let words = read_to_end(&mut stream).await;
        assert!(words.starts_with(&format!("HTTP/1.1 {code} ")), "{garbage:?}: {words}");
    }
    metric_reaches(&server, "roundsman_http_closed_total{reason=\"garbage\"}", 3.0).await;
    let mut long = TcpStream::connect(server.http_addr()).await.unwrap();
    long.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(32 * 1_024)).as_bytes()).await.unwrap();
    assert!(read_to_end(&mut long).await.starts_with("HTTP/1.1 431 "));
    server.stop().await;
}

/// Many ask at once for what costs: all are answered, with pages that are not older than their
/// question.
#[tokio::test]
async fn a_status_that_many_ask_for_is_never_older_than_the_question() {
    let server = Server::start(config("memory:")).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    for port in 1..=20 {
        raw.register(
            json!({"name": format!("s-{port}"), "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}}),
        )
        .await;
        let pages = futures::future::join_all((0..20).map(|_| page(&server, "/api/v1/status"))).await;
        for (code, body) in pages {
            let status: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(code, 200);
            assert_eq!(status["namespaces"][0]["services"].as_array().unwrap().len(), port, "{status}");
        }
    }
    server.stop().await;
}
