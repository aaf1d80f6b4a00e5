//! Instances that hang for an hour: they must not delay anybody else's visit.

use std::{net::SocketAddr, sync::Arc};

use roundsman_health::{Class, Settings};
use roundsman_protocol::Check;
use roundsman_registry::{Health, Record};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
};

use crate::support::{NEVER, OK, Server, UNAVAILABLE, Watched, http, record, request, settings, until};

const HUNG: usize = 300;

/// Connections to it are accepted by the kernel and by nobody else. It listens on all of 127.0.0.0/8.
fn hole() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    socket.listen(4_096).unwrap()
}

/// Each at an address of its own.
fn hung(hole: &TcpListener, count: usize, health: Health) -> Vec<Arc<Record>> {
    let port = hole.local_addr().unwrap().port();
    let check = Check { timeout: Some(NEVER), interval: Some(NEVER), ..Check::default() };
    let one =
        |n| record(&format!("hung-{n}"), &format!("127.1.{}.{}:{port}", n / 250, n % 250 + 1), check.clone(), health);
    (0..count).map(one).collect()
}

/// A new instance passes, and is evicted when it dies, while all the others hang.
async fn lives_and_dies(watched: &mut Watched) {
    let server = Server::answering(OK).await;
    let healthy = http("product-1", server.addr, Health::Starting);
    watched.rounds.track(&healthy);
    assert_eq!(watched.flip().await.0, Health::Passing);
    drop(server);
    assert_eq!(watched.flip().await, (Health::Evicted, Class::Refused, "GET /health: connection refused".into()));
}

/// There are far more of them than visits at a time, and none of their visits can have ended: they take an hour.
#[tokio::test]
async fn who_hangs_does_not_delay_another_ones_start_and_death() {
    let hole = hole();
    let mut watched = Watched::start(Settings { max_visits: 64, asking: 8, timeout: NEVER, ..settings() });
    for record in hung(&hole, HUNG, Health::Starting) {
        watched.rounds.track(&record);
    }
    until("all places are taken", || watched.rounds.status().in_flight >= 56).await;
    lives_and_dies(&mut watched).await;
    let log = watched.log.all();
    assert!(!log.contains(&Class::Silence), "none of those who hang was given up on: {log:?}");
    assert!(watched.rounds.status().in_flight <= 64, "{:?}", watched.rounds.status());
    watched.stop().await;
}

#[tokio::test]
async fn after_a_start_too() {
    let hole = hole();
    let mut watched = Watched::start(Settings { max_visits: 64, asking: 8, timeout: NEVER, ..settings() });
    watched.rounds.track_stored(&hung(&hole, HUNG, Health::Passing));
    until("all places are taken", || watched.rounds.status().in_flight >= 56).await;
    lives_and_dies(&mut watched).await;
    assert!(!watched.log.all().contains(&Class::Silence));
    watched.stop().await;
}

/// With room for all of them nobody is cut short, although only four may ask at a time.
#[tokio::test]
async fn who_waits_holds_no_permit_to_ask() {
    let hole = hole();
    let mut watched = Watched::start(Settings { max_visits: 2 * HUNG, asking: 4, timeout: NEVER, ..settings() });
    for record in hung(&hole, HUNG, Health::Starting) {
        watched.rounds.track(&record);
    }
    until("all are being waited for", || watched.rounds.status().in_flight == HUNG as u64).await;
    lives_and_dies(&mut watched).await;
    until("still", || watched.rounds.status().in_flight >= HUNG as u64).await;
    assert_eq!(watched.rounds.status().queued, 0);
    watched.stop().await;
}

#[tokio::test]
async fn who_was_waited_for_long_enough_and_is_cut_short_counts_as_silent() {
    let hole = hole();
    let timeout = std::time::Duration::from_millis(100);
    let mut watched = Watched::start(Settings { max_visits: 8, asking: 4, timeout, ..settings() });
    for record in hung(&hole, 40, Health::Starting) {
        watched.rounds.track(&record);
    }
    let (health, class, reason) = watched.flip().await;
    assert_eq!((health, class), (Health::Starting, Class::Silence));
    assert!(reason.starts_with("GET /health: no answer in ") && reason.contains("cut short"), "{reason}");
    watched.stop().await;
}

#[tokio::test]
async fn why_a_new_instance_does_not_pass_is_said_once_for_each_kind_of_reason() {
    let server = Server::answering(UNAVAILABLE).await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    assert_eq!(watched.flip().await.1, Class::Status);
    until("more visits", || watched.rounds.status().failed >= 4).await;
    assert_eq!(watched.pending(), []);
    drop(server);
    assert_eq!(watched.flip().await.0, Health::Starting, "another reason");
    watched.stop().await;
}

#[tokio::test]
async fn another_answer_of_a_new_instance_is_another_reason() {
    let server = Server::start(|_, mut stream, seen| async move {
        while request(&mut stream, &seen).await {
            let broken = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n";
            let answer = if seen.requests() == 1 { UNAVAILABLE } else { &broken[..] };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    for code in ["GET /health: 503 in ", "GET /health: 500 in "] {
        let (health, class, reason) = watched.flip().await;
        assert!((health, class) == (Health::Starting, Class::Status) && reason.starts_with(code), "{reason}");
    }
    watched.stop().await;
}

#[tokio::test]
async fn a_forbidden_address_is_said_while_it_starts() {
    let mut watched = Watched::start(settings());
    watched.rounds.track(&record("product-1", "169.254.169.254:80", Check::default(), Health::Starting));
    let (health, class, reason) = watched.flip().await;
    assert_eq!((health, class), (Health::Starting, Class::Forbidden));
    assert!(reason.contains("169.254.169.254 is link-local"), "{reason}");
    watched.stop().await;
}
