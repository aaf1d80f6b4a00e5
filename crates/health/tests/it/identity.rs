//! Whose answer it is: an address may be taken over by another program.

use std::sync::Arc;

use roundsman_health::{Class, Nudge, Settings};
use roundsman_protocol::{Check, check::Expect};
use roundsman_registry::Health;

use crate::{
    support::{OK, Server, Watched, key, nowhere, record, settings, until},
    tls::serve,
};

const MINE: &[u8] = b"HTTP/1.1 200 OK\r\nRoundsman-Instance: product-1\r\nContent-Length: 2\r\n\r\nok";
const OTHERS: &[u8] = b"HTTP/1.1 200 OK\r\nRoundsman-Instance: order-1\r\nContent-Length: 2\r\n\r\nok";
const BOTH: &[u8] = b"HTTP/1.1 200 OK\r\nroundsman-instance: order-1, product-1\r\nContent-Length: 2\r\n\r\nok";
const UNWELL: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

fn expecting(expect: &Expect, check: Check) -> Check {
    let check = Check { expect: Some(Arc::new(expect.clone())), ..check };
    check.validate().unwrap();
    check
}

/// What a visit makes of an answer, over http and over https.
async fn verdicts(expect: &Expect, answer: &'static [u8]) -> (Class, String) {
    let server = Server::answering(answer).await;
    let mut found = Vec::new();
    for (addr, check) in [(server.addr, Check::default()), (serve(answer).0, Check::https("/health"))] {
        let mut watched = Watched::start(Settings { failures: 1, ..settings() });
        watched.rounds.track(&record("product-1", &addr.to_string(), expecting(expect, check), Health::Suspect));
        let (_, class, reason) = watched.flip().await;
        watched.stop().await;
        found.push((class, reason));
    }
    assert_eq!(found[0].0, found[1].0, "{found:?}");
    if found[0].0 == Class::Stranger {
        assert_eq!(found[0], found[1]);
    }
    found.remove(0)
}

#[tokio::test]
async fn the_right_header_passes_and_another_one_is_a_stranger() {
    let mine = Expect::header("roundsman-instance", "product-1");
    for answer in [MINE, BOTH] {
        assert_eq!(verdicts(&mine, answer).await.0, Class::Passed);
    }
    let reason = "GET /health: another service answers here: no header roundsman-instance: product-1";
    for answer in [OTHERS, OK] {
        assert_eq!(verdicts(&mine, answer).await, (Class::Stranger, reason.to_owned()));
    }
    assert_eq!(verdicts(&mine, UNWELL).await.0, Class::Status, "who is unwell is not asked for more");
}

#[tokio::test]
async fn the_right_text_is_found_in_bodies_of_all_kinds() {
    let mine = Expect::body("\"id\":\"product-1\"");
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"id\":\"product-1\"}"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"id\":\"p\r\na\r\nroduct-1\"}\r\n0\r\n\r\n",
    ] {
        assert_eq!(verdicts(&mine, answer).await.0, Class::Passed);
    }
    let reason = "GET /health: another service answers here: no \"\\\"id\\\":\\\"product-1\\\"\" in the body";
    for answer in [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"id\":\"o\r\n8\r\nrder-1\"}\r\n0\r\n\r\n",
    ] {
        assert_eq!(verdicts(&mine, answer).await, (Class::Stranger, reason.to_owned()));
    }
}

#[tokio::test]
async fn the_text_of_a_long_body_is_looked_for_near_its_beginning() {
    let long = |text: &str, at: usize, head: &str| -> &'static [u8] {
        let body = format!("{}{text}{}", "x".repeat(at), "y".repeat(20_000 - at - text.len()));
        format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").leak().as_bytes()
    };
    let mine = Expect::body("product-1");
    for head in ["Content-Length: 20000", "Connection: close"] {
        assert_eq!(verdict_once(&mine, long("product-1", 4_000, head)).await, Class::Passed, "{head}");
        assert_eq!(verdict_once(&mine, long("product-1", 9_000, head)).await, Class::Stranger, "{head}");
    }
}

/// What a visit makes of an answer after which the connection is closed.
async fn verdict_once(expect: &Expect, answer: &'static [u8]) -> Class {
    let server = Server::start(move |_, mut stream, seen| async move {
        use tokio::io::AsyncWriteExt as _;
        crate::support::request(&mut stream, &seen).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        crate::support::request(&mut stream, &seen).await;
    });
    let mut watched = Watched::start(Settings { failures: 1, ..settings() });
    let addr = server.await;
    watched.rounds.track(&record(
        "product-1",
        &addr.addr.to_string(),
        expecting(expect, Check::default()),
        Health::Suspect,
    ));
    let (_, class, _) = watched.flip().await;
    watched.stop().await;
    class
}

/// A killed instance whose address another service's process takes over.
#[tokio::test]
async fn whoever_takes_over_an_address_does_not_pass_for_the_instance() {
    let mine = Expect::header("Roundsman-Instance", "product-1");
    let addr = nowhere().await;
    let server = Server::answering_at(addr, MINE).await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&record("product-1", &addr.to_string(), expecting(&mine, Check::default()), Health::Starting));
    assert_eq!(watched.flip().await.0, Health::Passing);
    let another = tokio::net::TcpSocket::new_v4().unwrap();
    another.set_reuseaddr(true).unwrap();
    drop(server);
    until("the address is free", || another.bind(addr).is_ok() || another.local_addr().is_ok_and(|at| at == addr))
        .await;
    let another = another.listen(128).unwrap();
    let _another = Server::on(another, |_, stream, seen| crate::support::answer_all(stream, seen, OTHERS));
    watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    loop {
        let (health, class, reason) = watched.flip().await;
        if class == Class::Stranger {
            assert!(reason.starts_with("GET /health: another service answers here: no header "), "{reason}");
        }
        if health == Health::Evicted {
            break;
        }
    }
    let strangers = |log: &[Class]| log.iter().filter(|class| **class == Class::Stranger).count();
    until("it is still a stranger on probation", || strangers(&watched.log.all()) > 2).await;
    assert!(watched.pending().is_empty(), "a stranger does not reinstate it");
    watched.stop().await;
}
