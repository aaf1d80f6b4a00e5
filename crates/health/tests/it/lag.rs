//! Our own lag: a clock that jumps is a server that was stopped.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Class, Nudge, Observation, Settings};
use roundsman_protocol::{Check, Timestamp};
use roundsman_registry::{Health, Record};
use tokio::{
    net::TcpListener,
    task::yield_now,
    time::{Instant, advance, sleep},
};

use crate::support::{NEVER, Watched, http, key, record, settings, until};

const TTL: Duration = Duration::from_secs(3);
const STOP: Duration = Duration::from_secs(10);

fn short() -> Settings {
    Settings { timeout: Duration::from_secs(1), ..settings() }
}

fn ttl(n: usize) -> Arc<Record> {
    record(&format!("product-{n}"), "10.0.0.7:7070", Check::ttl(TTL), Health::Passing)
}

/// Everything that is due has run, and nothing else.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_everybody_has_a_full_ttl_to_call_in() {
    let mut watched = Watched::start(short());
    for n in 0..100 {
        watched.rounds.track(&ttl(n));
    }
    sleep(TTL / 2).await;
    advance(STOP).await;
    settle().await;
    let thaw = Instant::now();
    assert_eq!(watched.pending(), [], "renewals that came meanwhile could not be read");
    let lag = watched.rounds.status().lag;
    assert!(lag.voided == 100 && lag.worst > STOP / 2 && lag.recent == lag.worst && lag.last.is_some(), "{lag:?}");
    sleep(TTL / 2).await;
    for n in 0..99 {
        assert!(watched.rounds.renew(&key(&format!("product-{n}"))));
    }
    let (health, class, reason) = watched.flip().await;
    assert_eq!((health, class, reason.as_str()), (Health::Evicted, Class::Ttl, "no renewal within 3s"));
    assert_eq!(thaw.elapsed().as_secs(), TTL.as_secs());
    assert_eq!(watched.pending(), [], "the one that did not call in, and nobody else");
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stops_without_end_do_not_keep_one_that_never_calls_in() {
    let mut watched = Watched::start(short());
    watched.rounds.track(&ttl(1));
    for _ in 0..3 {
        sleep(Duration::from_secs(1)).await;
        advance(STOP).await;
        settle().await;
        assert_eq!(watched.pending(), []);
    }
    sleep(Duration::from_secs(1)).await;
    advance(STOP).await;
    assert_eq!(watched.flip().await.1, Class::Ttl);
    watched.stop().await;
}

/// Another server hears it, and says so while this one is stopped.
#[tokio::test(start_paused = true)]
async fn what_others_answer_while_we_are_stopped_counts() {
    let mut watched = Watched::start(Settings { replicas: true, ..short() });
    let here = ttl(1);
    watched.rounds.track(&here);
    assert!(watched.rounds.renew(&key("product-1")));
    assert_eq!(watched.flip().await.0, Health::Suspect);
    advance(STOP).await;
    settle().await;
    assert_eq!(watched.pending(), [], "the answer could not be read");
    let at = Timestamp::from_millis(1_000_000_001);
    let seen = |health| Arc::new(here.seen(health, "called in".into(), "other".into(), at));
    watched.rounds.track(&seen(Health::Passing));
    sleep(TTL).await;
    assert_eq!(watched.pending(), []);
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_we_were_too_late_for_is_void_and_made_again() {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut watched = Watched::start(short());
    watched.rounds.track(&http("product-1", hung.local_addr().unwrap(), Health::Passing));
    watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    until("a visit is under way", || watched.rounds.status().in_flight == 1).await;
    advance(STOP).await;
    settle().await;
    assert_eq!((watched.pending(), watched.rounds.status().visits), (Vec::new(), 0));
    assert_eq!(watched.rounds.status().lag.voided, 1);
    let thaw = Instant::now();
    assert_eq!(watched.flip().await, (Health::Suspect, Class::Silence, "GET /health: no answer in 1s".into()));
    assert!(thaw.elapsed() < STOP, "visited again soon");
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stops_without_end_do_not_keep_one_that_never_answers() {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut watched = Watched::start(Settings { interval: Duration::from_secs(5), ..short() });
    watched.rounds.track(&http("product-1", hung.local_addr().unwrap(), Health::Passing));
    watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
    let mut flips = Vec::new();
    for _ in 0..10 {
        until("a visit is under way", || watched.rounds.status().in_flight == 1).await;
        advance(STOP).await;
        settle().await;
        flips.extend(watched.pending());
        if flips.len() == 2 {
            break;
        }
    }
    assert!(matches!(flips[..], [_, Observation::Health { health: Health::Evicted, .. }]), "{flips:?}");
    assert_eq!(watched.rounds.status().lag.voided, 3, "as often as one that does not call in is forgiven");
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_is_not_over_because_we_were_stopped() {
    let addr = crate::support::nowhere().await;
    let mut watched = Watched::start(Settings { start_deadline: STOP, probation: NEVER, ..short() });
    watched.rounds.track(&http("product-1", addr, Health::Starting));
    assert_eq!(watched.flip().await.1, Class::Refused);
    let start = Instant::now();
    advance(STOP).await;
    assert_eq!(watched.flip().await.1, Class::StartDeadline);
    assert!(start.elapsed() > STOP + STOP / 2, "{:?}", start.elapsed());
    watched.stop().await;
}

#[tokio::test(start_paused = true)]
async fn time_that_passes_is_no_lag() {
    let watched = Watched::start(short());
    sleep(Duration::from_secs(3_600)).await;
    let lag = watched.rounds.status().lag;
    assert_eq!((lag.worst, lag.recent, lag.voided, lag.last), (Duration::ZERO, Duration::ZERO, 0, None));
    watched.stop().await;
}
