//! Answers that somebody tampered with: whatever comes, a visit ends, and the next one is made.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Class, Settings};
use roundsman_protocol::{Check, check::Expect};
use roundsman_registry::Health;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Server, Watched, record, request, settings, until};

const VALID: [&[u8]; 4] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\nproduct-1",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nprodu\r\n4;a=b\r\nct-1\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
];
/// Answers that are tried.
const ANSWERS: usize = 400;

/// The n-th answer: a valid one in which a few bytes were changed, taken out, or repeated. Always the same.
fn tampered(n: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n as u64);
    let mut bytes = VALID[n % VALID.len()].to_vec();
    for _ in 0..random.usize(1..=4) {
        let place = random.usize(0..bytes.len());
        match random.u8(0..5) {
            0 => bytes[place] = random.u8(..),
            1 => bytes[place] ^= 1 << random.u8(0..8),
            2 => drop(bytes.drain(place..bytes.len().min(place + random.usize(1..20)))),
            3 => bytes.extend_from_within(place..),
            _ => bytes.splice(place..place, *b"\r\n4294967296").for_each(drop),
        }
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
    }
    bytes
}

#[tokio::test]
async fn a_visit_survives_whatever_it_is_answered() {
    let server = Server::start(|number, mut stream, seen| async move {
        let mut answer = number;
        while request(&mut stream, &seen).await {
            let _ = stream.write_all(&tampered(answer)).await;
            // Every other one leaves the visitor waiting for more.
            if number % 2 == 0 {
                return;
            }
            answer += ANSWERS;
        }
    });
    let server = server.await;
    let (timeout, interval) = (Duration::from_millis(100), Duration::from_millis(1));
    let watched = Watched::start(Settings { timeout, interval, failures: u32::MAX, ..settings() });
    for (id, expect) in
        [("none", None), ("body", Some(Expect::body("product-1"))), ("head", Some(Expect::header("a", "b")))]
    {
        let check = Check { expect: expect.map(Arc::new), ..Check::default() };
        watched.rounds.track(&record(id, &server.addr.to_string(), check, Health::Passing));
    }
    until("all answers were given", || server.seen.connections() >= ANSWERS).await;
    let visits = watched.log.all().len();
    until("all three are visited on", || watched.log.all().len() > visits + 10).await;
    let log = watched.log.all();
    for class in [Class::Passed, Class::Garbage, Class::Reset, Class::Status, Class::Stranger] {
        assert!(log.contains(&class), "{class:?}");
    }
    watched.stop().await;
}
