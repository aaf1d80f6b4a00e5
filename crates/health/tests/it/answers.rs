//! What one visit makes of one answer.

use std::{sync::atomic::Ordering, time::Duration};

use roundsman_health::{Class, Settings, TargetPolicy};
use roundsman_protocol::Check;
use roundsman_registry::Health;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::support::{OK, Server, Watched, answer_all, nowhere, record, request, settings, until};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = crate::support::PATIENCE;

/// Visits `address` exactly once.
async fn verdict(settings: Settings, address: &str, check: Check) -> (Class, String) {
    let mut watched = Watched::start(Settings { failures: 1, ..settings });
    watched.rounds.track(&record("product-1", address, check, Health::Suspect));
    let (health, class, reason) = watched.flip().await;
    assert_eq!(watched.log.all()[0], class);
    assert_eq!(health == Health::Passing, class == Class::Passed);
    watched.stop().await;
    (class, reason)
}

async fn visit(server: &Server, timeout: Duration) -> (Class, String) {
    verdict(Settings { timeout, ..settings() }, &server.addr.to_string(), Check::default()).await
}

/// Visits a server that sends these pieces one after the other and keeps the connection open.
async fn answered(timeout: Duration, pieces: &[&str]) -> (Class, String) {
    let pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
    let server = Server::start(move |_, mut stream, seen| {
        let pieces = pieces.clone();
        async move {
            stream.set_nodelay(true).unwrap();
            while request(&mut stream, &seen).await {
                for piece in &pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    });
    visit(&server.await, timeout).await
}

/// Visits a server that sends this and closes the connection, or resets it.
async fn broken_off(piece: &'static str, reset: bool) -> (Class, String) {
    let server = Server::start(move |_, mut stream, seen| async move {
        request(&mut stream, &seen).await;
        stream.write_all(piece.as_bytes()).await.unwrap();
        if reset {
            stream.set_zero_linger().unwrap();
        }
    });
    visit(&server.await, LONG).await
}

#[tokio::test]
async fn a_pass_is_a_2xx() {
    for (answer, class, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Class::Passed, "GET /health: 200 in "),
        ("HTTP/1.1 204 No Content\r\n\r\n", Class::Passed, "GET /health: 204 in "),
        ("HTTP/1.0 200 OK\r\n\r\nok", Class::Passed, "GET /health: 200 in "),
        (
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Class::Passed,
            "GET /health: 200 in ",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Class::Passed,
            "GET /health: 200 in ",
        ),
        ("HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Class::Status, "GET /health: 301 in "),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Class::Status, "GET /health: 404 in "),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", Class::Status, "GET /health: 500 in "),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Class::Status, "GET /health: 503 in "),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Class::Status, "GET /health: 101 in "),
    ] {
        let found = answered(LONG, &[answer]).await;
        assert_eq!(found.0, class, "{answer}");
        assert!(found.1.starts_with(reason) && found.1.ends_with(" ms"), "{}", found.1);
    }
}

#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let pieces: Vec<&str> = whole.split_inclusive(|_| true).collect();
    assert_eq!(answered(LONG, &pieces).await.0, Class::Passed);
}

#[tokio::test]
async fn silence_has_many_forms() {
    let nothing = answered(SHORT, &[]).await;
    assert_eq!(nothing, (Class::Silence, "GET /health: no answer in 300ms".into()));
    let half = answered(SHORT, &["HTTP/1.1 200 OK\r\nServer:"]).await;
    assert_eq!(half, nothing);
    let unfinished = answered(SHORT, &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]).await;
    assert_eq!(unfinished, (Class::Silence, "GET /health: 200, but the answer did not end in 300ms".into()));
    let bad = answered(SHORT, &["HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nno"]).await;
    assert_eq!(bad.0, Class::Status, "a 503 is one before it ends: {}", bad.1);
}

#[tokio::test]
async fn what_is_not_http_is_garbage() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    for (answer, reason) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP/1"),
        ("\u{0}\u{1}\u{2}", "the answer is not HTTP/1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", "the answer's chunks make no sense"),
        ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "the answer's Content-Length makes no sense"),
        (&huge, "the head of the answer is longer than 8 KiB"),
    ] {
        assert_eq!(answered(LONG, &[answer]).await, (Class::Garbage, format!("GET /health: {reason}")));
    }
}

#[tokio::test]
async fn of_a_huge_body_no_more_is_read_than_needed() {
    for head in ["Content-Length: 1000000000", "Transfer-Encoding: chunked", "X-Until: close"] {
        let server = Server::start(move |_, mut stream, seen| async move {
            request(&mut stream, &seen).await;
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut sent = 0;
            while stream.write_all(b"00000001\r\nx\r\n").await.is_ok() {
                sent += 1;
                assert!(sent < 10_000_000, "the visitor swallows everything");
            }
            seen.closed.fetch_add(1, Ordering::SeqCst);
        })
        .await;
        assert_eq!(visit(&server, LONG).await.0, Class::Passed, "{head}");
        until("the visitor closes", || server.seen.closed.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
    let amid = (Class::Reset, "GET /health: connection closed amid the answer".to_owned());
    assert_eq!(broken_off(head, false).await, amid);
    assert_eq!(broken_off("HTTP/1.1 200", false).await, amid);
    assert_eq!(broken_off("", false).await, (Class::Reset, "GET /health: connection closed without an answer".into()));
    assert_eq!(broken_off("", true).await, (Class::Reset, "GET /health: connection reset".into()));
    // The reset may overtake the bytes before it; either way there is no whole answer.
    assert_eq!(broken_off(head, true).await.0, Class::Reset);
    assert_eq!(broken_off("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n", false).await.0, Class::Status);
}

#[tokio::test]
async fn ipv6_and_names_are_visited_too() {
    let server = Server::answering(OK).await;
    let by_name = format!("localhost:{}", server.addr.port());
    let found = verdict(settings(), &by_name, Check::default()).await;
    assert_eq!(found.0, Class::Passed, "localhost may be ::1 first, where nobody listens: {}", found.1);
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        println!("no IPv6 on this machine");
        return;
    };
    let server = Server::on(listener, |_, stream, seen| answer_all(stream, seen, OK));
    assert_eq!(visit(&server, LONG).await.0, Class::Passed);
}

#[tokio::test]
async fn tcp_checks_connect_and_no_more() {
    let server = Server::answering(OK).await;
    let (class, reason) = verdict(settings(), &server.addr.to_string(), Check::tcp()).await;
    assert!(class == Class::Passed && reason.starts_with("tcp: connected in "), "{reason}");
    let refused = verdict(settings(), &nowhere().await.to_string(), Check::tcp()).await;
    assert_eq!(refused, (Class::Refused, "tcp: connection refused".into()));
    assert_eq!(server.seen.requests(), 0);
}

#[tokio::test]
async fn forbidden_addresses_are_never_connected_to() {
    for check in [Check::default(), Check::https("/health"), Check::tcp()] {
        let (class, reason) = verdict(settings(), "169.254.169.254:80", check).await;
        assert_eq!(class, Class::Forbidden);
        assert!(reason.ends_with("169.254.169.254 is link-local, which may not be visited"), "{reason}");
    }
    let server = Server::answering(OK).await;
    let targets = TargetPolicy::only(vec!["10.0.0.0/8".parse().unwrap()]);
    for host in ["127.0.0.1", "localhost"] {
        for check in [Check::default(), Check::https("/health"), Check::tcp()] {
            let settings = Settings { targets: targets.clone(), ..settings() };
            let address = format!("{host}:{}", server.addr.port());
            let (class, reason) = verdict(settings, &address, check).await;
            assert_eq!(class, Class::Forbidden, "{reason}");
        }
    }
    assert_eq!(server.seen.connections(), 0);
}

#[tokio::test]
async fn a_name_without_address_says_so() {
    let (class, reason) = verdict(settings(), "nobody.invalid:80", Check::default()).await;
    assert_eq!(class, Class::Unresolved);
    assert!(reason.starts_with("GET /health: cannot resolve nobody.invalid: "), "{reason}");
}
