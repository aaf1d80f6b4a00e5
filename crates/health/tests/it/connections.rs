//! Which connections are kept, for how long, and how often an instance is visited.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use roundsman_health::{Class, Nudge, Settings};
use roundsman_protocol::Trouble;
use roundsman_registry::Health;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::support::{NEVER, OK, Server, Watched, http, key, request, settings, until};

fn quick() -> Settings {
    Settings { interval: Duration::from_millis(20), ..settings() }
}

/// A server that answers once per connection, and then closes it.
async fn closing(answer: &'static [u8]) -> Server {
    Server::start(move |_, mut stream, seen| async move {
        request(&mut stream, &seen).await;
        stream.write_all(answer).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn six_visits_share_a_connection() {
    let server = Server::answering(OK).await;
    let watched = Watched::start(quick());
    watched.rounds.track(&http("product-1", server.addr, Health::Passing));
    let seen = &server.seen;
    until("the 6th visit", || seen.requests() >= 6 || seen.connections() > 1).await;
    assert!(seen.requests() >= 6, "a connection was given up after {} visits", seen.requests());
    until("the 7th visit", || seen.requests() >= 7).await;
    assert!(seen.connections() >= 2, "the 7th visit did not open a connection");
    // It is kept once its answer was read.
    until("the new connection to be kept", || watched.rounds.status().kept == 1).await;
    assert_eq!(watched.stop().await, []);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_not_kept() {
    let server = Server::answering(OK).await;
    let watched = Watched::start(Settings { max_kept: 0, ..quick() });
    watched.rounds.track(&http("product-1", server.addr, Health::Passing));
    until("some visits", || server.seen.requests() >= 5).await;
    assert!(server.seen.connections() >= 5);
    assert_eq!(watched.rounds.status().kept, 0);
    watched.stop().await;
}

#[tokio::test]
async fn servers_that_say_they_close_are_not_waited_for() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let server = closing(answer).await;
        let mut watched = Watched::start(settings());
        watched.rounds.track(&http("product-1", server.addr, Health::Starting));
        assert_eq!(watched.flip().await.0, Health::Passing);
        watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
        until("the nudged visit", || watched.log.all().len() == 2).await;
        assert_eq!(watched.stop().await, []);
        assert_eq!(server.seen.requests(), 2, "one asked for by the registration, one by the nudge");
    }
}

#[tokio::test]
async fn idle_closing_servers_are_looked_at_twice_and_then_only_polled() {
    let interval = Duration::from_secs(1);
    let server = closing(OK).await;
    let mut watched = Watched::start(Settings { interval, ..settings() });
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    assert_eq!(watched.flip().await.0, Health::Passing);
    let start = Instant::now();
    until("seven visits", || server.seen.requests() >= 7).await;
    // One by the registration, two by closed connections, the others by the rounds.
    let rounds = start.elapsed().as_secs_f64() / interval.as_secs_f64() + 1.0;
    assert!(7.0 <= 3.0 + rounds, "seven visits in {:?}", start.elapsed());
    assert_eq!(watched.stop().await, [], "no close was taken for a death");
}

#[tokio::test]
async fn a_close_that_crosses_a_visit_is_no_failure() {
    // Every connection answers once, and is closed when the second request arrives.
    let server = Server::start(|_, mut stream, seen| async move {
        request(&mut stream, &seen).await;
        stream.write_all(OK).await.unwrap();
        request(&mut stream, &seen).await;
    })
    .await;
    let watched = Watched::start(quick());
    watched.rounds.track(&http("product-1", server.addr, Health::Passing));
    until("ten visits", || watched.log.all().len() >= 10).await;
    let log = watched.log.all();
    assert_eq!(watched.stop().await, []);
    assert!(log.iter().all(|class| *class == Class::Passed), "{log:?}");
    assert!(server.seen.requests() > log.len(), "no close crossed a visit");
}

#[tokio::test]
async fn unasked_bytes_end_a_connection_and_do_no_harm() {
    let server = Server::start(|number, mut stream, seen| async move {
        request(&mut stream, &seen).await;
        stream.write_all(OK).await.unwrap();
        if number == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
        request(&mut stream, &seen).await;
    })
    .await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    assert_eq!(watched.flip().await.0, Health::Passing);
    until("a second connection", || watched.log.all().len() == 2).await;
    assert_eq!(watched.log.all(), [Class::Passed; 2]);
    assert_eq!(watched.stop().await, []);
}

#[tokio::test]
async fn a_storm_of_reports_makes_five_visits_a_second() {
    let server = Server::answering(OK).await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    watched.flip().await;
    let start = Instant::now();
    while watched.log.all().len() < 6 {
        for _ in 0..100 {
            watched.rounds.nudge(&key("product-1"), Nudge::Reported(Trouble::Timeout));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (visits, took) = (watched.log.all().len(), start.elapsed());
    let allowed = 1.0 + 2.0 + took.as_secs_f64() / 0.2;
    assert!(visits as f64 <= allowed, "{visits} visits in {took:?}");
    watched.stop().await;
}

#[tokio::test]
async fn visits_are_bounded_and_never_overlap_for_one_instance() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Server::start({
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |_, mut stream, seen| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                while request(&mut stream, &seen).await {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    stream.write_all(OK).await.unwrap();
                }
            }
        }
    })
    .await;
    let watched = Watched::start(Settings { max_visits: 2, interval: NEVER, ..settings() });
    let records: Vec<_> = (0..20).map(|n| http(&format!("product-{n}"), server.addr, Health::Passing)).collect();
    watched.rounds.track_stored(&records);
    for _ in 0..5 {
        watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    }
    until("a visit of each", || watched.rounds.status().visits >= 20).await;
    let status = watched.rounds.status();
    assert!(status.targets == 20 && status.unvisited == 0 && status.failed == 0, "{status:?}");
    watched.stop().await;
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} at a time");
}
