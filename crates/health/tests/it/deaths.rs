//! Deaths that are seen, with an interval so long that polling cannot be what saw them.

use std::time::Duration;

use roundsman_health::{Class, Nudge, Observation, Settings};
use roundsman_protocol::Trouble;
use roundsman_registry::Health;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet};

use crate::support::{OK, Server, UNAVAILABLE, Watched, answer_all, http, key, nowhere, request, settings, until};

async fn passing(settings: Settings, server: &Server) -> Watched {
    let mut watched = Watched::start(settings);
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    assert_eq!(watched.flip().await.0, Health::Passing);
    watched
}

#[tokio::test]
async fn a_closed_connection_is_a_death_seen_at_once() {
    let server = Server::answering(OK).await;
    let mut watched = passing(settings(), &server).await;
    drop(server);
    let refused = (Health::Evicted, Class::Refused, "GET /health: connection refused".to_owned());
    assert_eq!(watched.flip().await, refused);
    assert_eq!(watched.log.all()[..2], [Class::Passed, Class::Refused], "one visit was enough");
    assert_eq!(watched.rounds.status().evictions, 1);
    watched.stop().await;
}

#[tokio::test]
async fn a_reset_connection_is_a_death_seen_at_once() {
    let (kill, killed) = tokio::sync::watch::channel(false);
    let server = Server::start(move |number, mut stream, seen| {
        let mut killed = killed.clone();
        async move {
            request(&mut stream, &seen).await;
            if number > 0 {
                return std::future::pending().await;
            }
            stream.write_all(OK).await.unwrap();
            killed.wait_for(|killed| *killed).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let mut watched = passing(settings(), &server).await;
    kill.send_replace(true);
    until("the prompt visit", || server.seen.requests() == 2).await;
    drop(server);
    // The visit was under way when the rest of it died: visited once more within milliseconds, and not suspect first.
    assert_eq!(watched.flip().await, (Health::Evicted, Class::Refused, "GET /health: connection refused".into()));
    watched.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_proof() {
    let mut watched = Watched::start(settings());
    watched.rounds.track_stored(&[http("product-1", nowhere().await, Health::Passing)]);
    assert_eq!(watched.flip().await.0, Health::Evicted);
    assert_eq!(watched.log.all()[0], Class::Refused);
    watched.stop().await;
}

#[tokio::test]
async fn a_nudge_is_a_visit() {
    let server = Server::answering(UNAVAILABLE).await;
    for why in [Nudge::SessionClosed, Nudge::Reported(Trouble::Status(503))] {
        let mut watched = Watched::start(settings());
        watched.rounds.track(&http("product-1", server.addr, Health::Passing));
        assert_eq!(watched.log.all(), [], "its round comes by some time in the next hour");
        watched.rounds.nudge(&key("product-1"), why);
        assert_eq!(watched.flip().await.0, Health::Suspect);
        let (health, class, reason) = watched.flip().await;
        assert_eq!((health, class), (Health::Evicted, Class::Status));
        assert!(reason.starts_with("GET /health: 503 in "), "{reason}");
        watched.stop().await;
    }
}

#[tokio::test]
async fn a_listener_that_is_gone_does_not_hide_behind_an_old_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = std::sync::Arc::<crate::support::Seen>::default();
    let mut tasks = JoinSet::new();
    let noted = std::sync::Arc::clone(&seen);
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        answer_all(stream, noted, OK).await;
    });
    let mut watched = Watched::start(Settings { interval: Duration::from_millis(20), ..settings() });
    watched.rounds.track(&http("product-1", addr, Health::Passing));
    assert_eq!(watched.flip().await.1, Class::Refused);
    assert_eq!(seen.requests(), 6, "the old connection answered that often");
    watched.stop().await;
}

#[tokio::test]
async fn an_instance_that_comes_back_is_reinstated_and_flapping_is_damped() {
    let server = Server::answering(OK).await;
    let addr = server.addr;
    let mut watched = passing(settings(), &server).await;
    drop(server);
    assert_eq!(watched.flip().await.0, Health::Evicted);
    for (round, passes) in [(1, 1), (2, 2)] {
        let before = watched.log.all().len();
        let server = Server::answering_at(addr, OK).await;
        let (health, _, reason) = watched.flip().await;
        assert!(health == Health::Passing && reason.starts_with("GET /health: 200 in "), "{reason}");
        let passed = watched.log.all().split_off(before).into_iter().filter(|class| *class == Class::Passed).count();
        assert_eq!(passed, passes);
        assert_eq!(watched.rounds.status().reinstatements, round);
        drop(server);
        assert_eq!(watched.flip().await.0, Health::Evicted);
    }
    watched.stop().await;
}

#[tokio::test]
async fn after_probation_it_is_forgotten() {
    let settings = Settings { probation: Duration::from_millis(500), ..settings() };
    let mut watched = Watched::start(settings);
    let record = http("product-1", nowhere().await, Health::Passing);
    watched.rounds.track_stored(std::slice::from_ref(&record));
    assert_eq!(watched.flip().await.0, Health::Evicted);
    let forget = Observation::Forget { key: record.key(), incarnation: 1, reason: "probation is over".into() };
    assert_eq!(watched.next().await, forget);
    let visits = watched.rounds.status().visits;
    watched.rounds.nudge(&record.key(), Nudge::SessionClosed);
    assert_eq!(watched.rounds.status().visits, visits);
    assert_eq!(watched.stop().await, []);
}

#[tokio::test]
async fn a_start_is_observed_when_it_passes_and_ends_when_it_never_does() {
    let addr = nowhere().await;
    let mut watched = Watched::start(Settings { start_deadline: Duration::from_millis(300), ..settings() });
    watched.rounds.track(&http("product-1", addr, Health::Starting));
    let refused = (Health::Starting, Class::Refused, "GET /health: connection refused".to_owned());
    assert_eq!(watched.flip().await, refused, "why it does not pass yet is said once");
    let (health, class, reason) = watched.flip().await;
    assert_eq!((health, class), (Health::Evicted, Class::StartDeadline));
    assert_eq!(reason, "no visit passed within 300ms of registration; last GET /health: connection refused");
    let _server = Server::answering_at(addr, OK).await;
    assert_eq!(watched.flip().await.0, Health::Passing);
    watched.stop().await;
}
