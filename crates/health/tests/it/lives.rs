//! Tracking, lives, renewals and the end.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Class, Nudge, Observation, Settings};
use roundsman_protocol::{Check, Timestamp};
use roundsman_registry::{Health, Record};
use tokio::time::{Instant, sleep};

use crate::support::{OK, Server, UNAVAILABLE, Watched, http, in_life, key, nowhere, record, settings, until};

const TTL: Duration = Duration::from_secs(10);

fn ttl(health: Health) -> Arc<Record> {
    record("product-1", "10.0.0.7:7070", Check::ttl(TTL), health)
}

/// The same life, as another server on the same store sees it.
fn elsewhere(record: &Record, health: Health) -> Arc<Record> {
    let at = Timestamp::from_millis(1_000_000_001);
    Arc::new(record.seen(health, "GET /health: connection refused".into(), "other".into(), at))
}

#[tokio::test(start_paused = true)]
async fn who_calls_in_passes_and_who_stops_is_evicted_and_forgotten() {
    let mut watched = Watched::start(Settings { probation: Duration::from_secs(15), ..settings() });
    watched.rounds.track(&ttl(Health::Starting));
    assert_eq!(watched.flip().await, (Health::Passing, Class::Passed, "called in".into()));
    for _ in 0..10 {
        sleep(TTL - Duration::from_secs(1)).await;
        assert!(watched.rounds.renew(&key("product-1")));
    }
    assert_eq!(watched.pending(), []);
    let last = Instant::now();
    assert_eq!(watched.flip().await, (Health::Evicted, Class::Ttl, "no renewal within 10s".into()));
    assert_eq!(last.elapsed().as_secs(), TTL.as_secs());
    assert!(!watched.rounds.renew(&key("product-1")), "it has to register again");
    assert!(matches!(watched.next().await, Observation::Forget { .. }));
    assert_eq!(last.elapsed().as_secs(), 25);
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_ttl_begins_anew() {
    let mut watched = Watched::start(settings());
    watched.rounds.track_stored(&[ttl(Health::Passing)]);
    assert_eq!(watched.rounds.status().unvisited, 0, "nobody visits it");
    let start = Instant::now();
    assert_eq!(watched.flip().await.0, Health::Evicted);
    assert_eq!(start.elapsed().as_secs(), TTL.as_secs());
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_ttl_instance_only_comes_back_by_registering() {
    let mut watched = Watched::start(Settings { probation: Duration::from_secs(15), ..settings() });
    watched.rounds.track_stored(&[ttl(Health::Evicted)]);
    tokio::task::yield_now().await;
    assert!(!watched.rounds.renew(&key("product-1")));
    assert!(matches!(watched.next().await, Observation::Forget { .. }));
    let again = in_life(2, &ttl(Health::Starting));
    watched.rounds.track(&again);
    assert_eq!(watched.flip().await.0, Health::Passing);
    assert!(watched.rounds.renew(&key("product-1")));
    watched.stop().await;
}

/// Another server on the same store heard nothing of it, and evicted it.
#[tokio::test(start_paused = true)]
async fn who_calls_in_here_and_was_evicted_elsewhere_is_said_to_be_well() {
    let mut watched = Watched::start(settings());
    let here = ttl(Health::Passing);
    watched.rounds.track(&here);
    assert!(watched.rounds.renew(&key("product-1")));
    watched.rounds.track(&elsewhere(&here, Health::Evicted));
    assert_eq!(watched.flip().await, (Health::Passing, Class::Passed, "called in".into()));
    watched.stop().await;
}

fn one_of_several() -> Settings {
    Settings { replicas: true, timeout: Duration::from_secs(1), ..settings() }
}

#[tokio::test(start_paused = true)]
async fn who_calls_in_elsewhere_is_asked_for_ever_more_seldom_and_not_evicted() {
    let mut watched = Watched::start(one_of_several());
    let short = Duration::from_secs(1);
    let here = record("product-1", "10.0.0.7:7070", Check::ttl(short), Health::Passing);
    watched.rounds.track(&here);
    assert!(watched.rounds.renew(&key("product-1")));
    let (mut last, mut apart) = (Instant::now(), Vec::new());
    for _ in 0..5 {
        let reason = "no renewal within 1s at one server; the others are asked";
        assert_eq!(watched.flip().await, (Health::Suspect, Class::Ttl, reason.to_owned()));
        apart.push(std::mem::replace(&mut last, Instant::now()).elapsed().as_secs());
        // Another server answers.
        watched.rounds.track(&elsewhere(&here, Health::Passing));
    }
    assert_eq!(apart, [1, 2, 4, 8, 16]);
    assert!(watched.rounds.renew(&key("product-1")), "from now on it calls in here");
    assert_eq!(watched.flip().await.0, Health::Suspect);
    assert_eq!(last.elapsed().as_secs(), short.as_secs());
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_never_called_in_here_are_not_asked_for_all_at_once() {
    let probation = Duration::from_secs(60);
    let mut watched = Watched::start(Settings { probation, ..one_of_several() });
    let all: Vec<_> =
        (0..600).map(|n| record(&format!("product-{n}"), "10.0.0.7:7070", Check::ttl(TTL), Health::Passing)).collect();
    watched.rounds.track_stored(&all);
    sleep(TTL - Duration::from_millis(10)).await;
    assert_eq!(watched.pending(), []);
    for _ in 0..6 {
        sleep(probation / 6).await;
        let asked = watched.pending().into_iter();
        let asked = asked.filter(|one| matches!(one, Observation::Health { health: Health::Suspect, .. })).count();
        assert!((50..150).contains(&asked), "{asked} of 600 in a sixth of the time");
    }
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whom_no_server_hears_is_evicted_once_they_were_asked() {
    let mut watched = Watched::start(one_of_several());
    watched.rounds.track(&ttl(Health::Passing));
    assert!(watched.rounds.renew(&key("product-1")));
    let start = Instant::now();
    assert_eq!(watched.flip().await.0, Health::Suspect);
    assert_eq!(watched.flip().await, (Health::Evicted, Class::Ttl, "no renewal within 10s".into()));
    assert_eq!(start.elapsed().as_secs(), TTL.as_secs() * 4 / 3);
    assert!(!watched.rounds.renew(&key("product-1")), "it has to register again");
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_calls_in_while_it_is_doubted_passes() {
    let mut watched = Watched::start(one_of_several());
    watched.rounds.track(&ttl(Health::Passing));
    assert!(watched.rounds.renew(&key("product-1")));
    assert_eq!(watched.flip().await.0, Health::Suspect);
    assert!(watched.rounds.renew(&key("product-1")));
    assert_eq!(watched.flip().await, (Health::Passing, Class::Passed, "called in".into()));
    watched.stop().await;
}

/// The server where it calls in answers for it; one that does not hear it says nothing.
#[tokio::test(start_paused = true)]
async fn a_doubt_of_another_server_is_answered_where_it_calls_in() {
    let mut watched = Watched::start(one_of_several());
    let here = ttl(Health::Passing);
    watched.rounds.track(&here);
    let doubted = elsewhere(&here, Health::Suspect);
    watched.rounds.track(&doubted);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(watched.pending(), [], "it registered, and did not call in yet");
    watched.rounds.track(&here);
    assert!(watched.rounds.renew(&key("product-1")));
    watched.rounds.track(&doubted);
    assert_eq!(watched.flip().await.0, Health::Passing);
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_evicted_elsewhere_and_does_not_call_in_here_is_out_here_too() {
    let mut watched = Watched::start(Settings { probation: Duration::from_secs(15), ..one_of_several() });
    let here = ttl(Health::Passing);
    watched.rounds.track(&here);
    sleep(Duration::from_secs(1)).await;
    watched.rounds.track(&elsewhere(&here, Health::Evicted));
    sleep(TTL).await;
    assert_eq!(watched.pending(), [], "there is nothing to say or to ask");
    assert!(!watched.rounds.renew(&key("product-1")));
    assert!(matches!(watched.next().await, Observation::Forget { .. }), "the other one may be gone by then");
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_calls_in_elsewhere_is_not_forgotten_here() {
    let mut watched = Watched::start(Settings { probation: Duration::from_secs(15), ..settings() });
    let evicted = ttl(Health::Evicted);
    watched.rounds.track(&evicted);
    assert!(matches!(watched.next().await, Observation::Forget { .. }));
    watched.rounds.track(&elsewhere(&evicted, Health::Passing));
    tokio::task::yield_now().await;
    assert!(watched.rounds.renew(&key("product-1")), "it may call in here as well");
    assert_eq!(watched.flip().await.0, Health::Evicted, "and is missed when it does no longer");
    watched.stop().await;
}

#[tokio::test]
async fn unchecked_instances_need_nothing() {
    let watched = Watched::start(settings());
    // Until now it was visited; with another check its visits end.
    watched.rounds.track(&http("product-1", nowhere().await, Health::Passing));
    assert_eq!(watched.rounds.status().targets, 1);
    let unchecked = record("product-1", "10.0.0.7:7070", Check::none(), Health::Passing);
    watched.rounds.track(&in_life(2, &unchecked));
    assert_eq!(watched.rounds.status().targets, 0);
    assert!(!watched.rounds.renew(&key("product-1")), "the rounds know nothing of it");
    watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    assert_eq!(watched.stop().await, []);
}

#[tokio::test]
async fn the_same_life_goes_on_and_another_one_begins_anew() {
    let (well, ill) = (Server::answering(OK).await, Server::answering(UNAVAILABLE).await);
    let mut watched = Watched::start(settings());
    let first = http("product-1", well.addr, Health::Starting);
    watched.rounds.track(&first);
    assert_eq!(watched.flip().await.0, Health::Passing);
    watched.rounds.track(&Arc::new(first.drained(true, 1, Timestamp::default())));
    assert_eq!(watched.rounds.status().targets, 1);
    assert_eq!(watched.rounds.status().kept, 1);
    let second = http("product-1", ill.addr, Health::Suspect);
    watched.rounds.track(&in_life(2, &second));
    let Observation::Health { incarnation, health, .. } = watched.next().await else { panic!() };
    assert_eq!((incarnation, health), (2, Health::Evicted));
    until("the old connection is closed", || well.seen.closed.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    assert_eq!(well.seen.requests(), 1, "draining changed nothing about the visits");
    watched.stop().await;
}

/// Another server on the same store saw it fail, and may be gone since.
#[tokio::test]
async fn who_was_evicted_elsewhere_and_answers_here_is_said_to_be_well() {
    let well = Server::answering(OK).await;
    let mut watched = Watched::start(settings());
    let first = http("product-1", well.addr, Health::Starting);
    watched.rounds.track(&first);
    assert_eq!(watched.flip().await.0, Health::Passing);
    watched.rounds.track(&elsewhere(&first, Health::Evicted));
    assert_eq!(watched.flip().await.0, Health::Passing, "long before its next round");
    watched.stop().await;
}

/// Another server saw it well in time, so it is not gone.
#[tokio::test]
async fn who_is_not_forgotten_after_all_is_visited_on() {
    let addr = nowhere().await;
    let mut watched = Watched::start(Settings { probation: Duration::from_millis(50), ..settings() });
    let evicted = http("product-1", addr, Health::Evicted);
    watched.rounds.track(&evicted);
    assert!(matches!(watched.next().await, Observation::Forget { .. }));
    let well = Server::answering_at(addr, OK).await;
    watched.rounds.track(&elsewhere(&evicted, Health::Passing));
    until("it is visited again", || well.seen.requests() > 0).await;
    assert_eq!(watched.rounds.brake().visited, 1, "it counts among those who are handed out");
    drop(well);
    watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    while watched.flip().await.0 != Health::Evicted {}
    watched.stop().await;
}

#[tokio::test]
async fn untracking_closes_the_connection() {
    let server = Server::answering(OK).await;
    let mut watched = Watched::start(settings());
    watched.rounds.track(&http("product-1", server.addr, Health::Starting));
    watched.flip().await;
    watched.rounds.untrack(&key("product-1"));
    until("the connection is closed", || server.seen.closed.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    let status = watched.rounds.status();
    assert_eq!((status.targets, status.kept, status.in_flight), (0, 0, 0));
    assert_eq!(watched.rounds.brake().visited, 0);
    assert_eq!(watched.stop().await, []);
}

#[tokio::test]
async fn stopping_leaves_nothing_behind() {
    let (well, silent) = (Server::answering(OK).await, Server::silent().await);
    let watched = Watched::start(settings());
    let rounds = watched.rounds.clone();
    rounds.track(&http("product-1", well.addr, Health::Passing));
    rounds.track(&http("product-2", silent.addr, Health::Starting));
    rounds.track(&record("product-3", "10.0.0.7:7070", Check::ttl(TTL), Health::Passing));
    until("a visit is under way", || rounds.status().in_flight == 1).await;
    let (rounds_after, log) = (rounds.clone(), Arc::clone(&watched.log));
    timeout_stop(watched).await;
    rounds_after.track(&http("product-4", well.addr, Health::Starting));
    let status = rounds_after.status();
    assert_eq!((status.targets, status.kept, status.in_flight), (0, 0, 0));
    drop((rounds, rounds_after));
    assert_eq!(Arc::strong_count(&log), 1, "a task still holds the witness");
}

async fn timeout_stop(watched: Watched) {
    let stopped = tokio::time::timeout(crate::support::PATIENCE, watched.rounds.stop()).await;
    assert!(stopped.is_ok(), "a visitor does not stop");
}
