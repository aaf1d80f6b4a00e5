//! The start gate: after a start, silence waits until everybody was visited, and proof does not.

use std::{sync::Arc, time::Duration};

use roundsman_health::{Class, Observation, Settings};
use roundsman_protocol::Check;
use roundsman_registry::{Health, Record};

use crate::support::{
    NEVER, PATIENCE, Server, UNAVAILABLE, Watched, http, in_health, nowhere, record, settings, until,
};

/// One whose visits end after `timeout`.
fn patient(id: &str, server: &Server, timeout: Duration) -> Arc<Record> {
    let check = Check { timeout: Some(timeout), interval: Some(NEVER), ..Check::default() };
    record(id, &server.addr.to_string(), check, Health::Passing)
}

fn is_eviction(observation: &Observation) -> bool {
    matches!(observation, Observation::Health { health: Health::Evicted, .. })
}

#[tokio::test]
async fn proof_does_not_wait_for_those_who_hang() {
    let hung = Server::silent().await;
    let mut watched = Watched::start(settings());
    let dead = http("product-dead", nowhere().await, Health::Passing);
    watched.rounds.track_stored(&[dead, patient("product-hung", &hung, NEVER)]);
    assert_eq!(watched.rounds.status().unvisited, 2);
    let refused = (Health::Evicted, Class::Refused, "GET /health: connection refused".to_owned());
    assert_eq!(watched.flip().await, refused);
    assert_eq!(watched.rounds.status().unvisited, 1, "the one that hangs was not visited to the end yet");
    watched.stop().await;
}

#[tokio::test]
async fn bad_answers_do_not_wait_for_those_who_hang() {
    let (hung, ill) = (Server::silent().await, Server::answering(UNAVAILABLE).await);
    let mut watched = Watched::start(settings());
    let ill = http("product-ill", ill.addr, Health::Passing);
    watched.rounds.track_stored(&[ill, patient("product-hung", &hung, NEVER)]);
    let flips = [watched.flip().await, watched.flip().await].map(|(health, class, _)| (health, class));
    assert_eq!(flips, [(Health::Suspect, Class::Status), (Health::Evicted, Class::Status)]);
    assert_eq!(watched.rounds.status().unvisited, 1);
    watched.stop().await;
}

#[tokio::test]
async fn one_that_never_started_does_not_wait_for_those_who_hang_unless_it_is_silent() {
    let hung = Server::silent().await;
    let mut watched = Watched::start(Settings { start_deadline: Duration::from_millis(50), ..settings() });
    let refused = http("product-refused", nowhere().await, Health::Starting);
    let quick = patient("product-quick", &hung, Duration::from_millis(100));
    let silent = Arc::new(in_health(Health::Starting, &quick));
    watched.rounds.track_stored(&[Arc::clone(&refused), silent, patient("product-hung", &hung, NEVER)]);
    let evicted = loop {
        let observation = watched.next().await;
        if is_eviction(&observation) {
            break observation;
        }
    };
    assert!(matches!(evicted, Observation::Health { key, .. } if key == refused.key()));
    let failed = watched.rounds.status().failed;
    until("more visits of both", || watched.rounds.status().failed >= failed + 4).await;
    assert!(!watched.stop().await.iter().any(is_eviction), "the silent one waits");
}

#[tokio::test]
async fn silence_waits_until_everybody_was_visited() {
    let hung = Server::silent().await;
    let mut watched = Watched::start(settings());
    let quick = patient("product-quick", &hung, Duration::from_millis(100));
    watched.rounds.track_stored(&[Arc::clone(&quick), patient("product-slow", &hung, Duration::from_millis(1_500))]);
    assert_eq!(watched.flip().await.0, Health::Suspect);
    while !is_eviction(&watched.next().await) {}
    assert_eq!(watched.rounds.status().unvisited, 0);
    watched.stop().await;
}

#[tokio::test]
async fn an_untracked_instance_does_not_keep_the_gate_shut() {
    let hung = Server::silent().await;
    let mut watched = Watched::start(settings());
    let slow = patient("product-slow", &hung, NEVER);
    watched.rounds.track_stored(&[patient("product-quick", &hung, Duration::from_millis(100)), Arc::clone(&slow)]);
    assert_eq!(watched.flip().await.0, Health::Suspect, "silent, but held");
    until("its eviction is held", || watched.rounds.brake().held == 1).await;
    watched.rounds.untrack(&slow.key());
    assert_eq!(watched.flip().await.0, Health::Evicted);
    watched.stop().await;
}

#[tokio::test]
async fn the_gate_opens_by_itself_after_an_interval_and_a_timeout() {
    let hung = Server::silent().await;
    let (interval, timeout) = (Duration::from_millis(400), Duration::from_millis(200));
    let mut watched = Watched::start(Settings { interval, timeout, ..settings() });
    let quick = http("product-quick", hung.addr, Health::Passing);
    watched.rounds.track_stored(&[quick, patient("product-hung", &hung, NEVER)]);
    while !is_eviction(&watched.next().await) {}
    assert_eq!(watched.rounds.status().unvisited, 1, "and nobody waited for the one that hangs");
    watched.stop().await;
}

/// Those with short timeouts fall silent when most others are still being waited for: all that were heard of are silent.
#[tokio::test]
async fn when_the_gate_opens_by_itself_in_a_blackout_the_brake_is_on() {
    let hung = Server::silent().await;
    let (interval, timeout) = (Duration::from_millis(400), Duration::from_millis(200));
    let watched = Watched::start(Settings { interval, timeout, brake_limit: NEVER, ..settings() });
    let mut records: Vec<_> = (0..5).map(|n| http(&format!("quick-{n}"), hung.addr, Health::Passing)).collect();
    records.extend((0..6).map(|n| patient(&format!("slow-{n}"), &hung, NEVER)));
    watched.rounds.track_stored(&records);
    until("the brake is on and holds", || watched.rounds.brake().on && watched.rounds.brake().held == 5).await;
    let failed = watched.rounds.status().failed;
    until("visits after the gate opened", || watched.rounds.status().failed >= failed + 15).await;
    assert_eq!(watched.rounds.status().unvisited, 6);
    assert!(!watched.stop().await.iter().any(is_eviction));
}

#[tokio::test]
async fn first_visits_come_within_an_interval() {
    let hung = Server::silent().await;
    let watched = Watched::start(Settings { interval: Duration::from_millis(1), timeout: PATIENCE, ..settings() });
    let records: Vec<_> = (0..200).map(|n| patient(&format!("hung-{n}"), &hung, NEVER)).collect();
    watched.rounds.track_stored(&records);
    until("all visits are under way", || watched.rounds.status().in_flight == 200).await;
    watched.stop().await;
}
