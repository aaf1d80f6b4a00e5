//! The brake.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roundsman_health::{Class, Nudge, Observation, Settings};
use roundsman_protocol::{Check, Trouble};
use roundsman_registry::{Health, Record};
use tokio::io::AsyncWriteExt as _;

use crate::support::{NEVER, OK, Server, Watched, http, nowhere, record, request, settings, until};

fn settings_for_silence() -> Settings {
    Settings {
        interval: Duration::from_millis(600),
        timeout: Duration::from_millis(400),
        brake_limit: NEVER,
        ..settings()
    }
}

/// A server that can be cut off from the world and back.
async fn switched(up: &Arc<AtomicBool>) -> Server {
    let up = Arc::clone(up);
    Server::start(move |_, mut stream, seen| {
        let up = Arc::clone(&up);
        async move {
            while request(&mut stream, &seen).await {
                if up.load(Ordering::SeqCst) {
                    stream.write_all(OK).await.unwrap();
                }
            }
        }
    })
    .await
}

fn six(server: &Server) -> Vec<Arc<Record>> {
    (0..6).map(|n| http(&format!("product-{n}"), server.addr, Health::Passing)).collect()
}

fn healths(observations: Vec<Observation>) -> Vec<Health> {
    let health = |observation| match observation {
        Observation::Health { health, .. } => health,
        other @ Observation::Forget { .. } => panic!("{other:?}"),
    };
    observations.into_iter().map(health).collect()
}

#[tokio::test]
async fn a_blackout_evicts_nobody() {
    let up = Arc::new(AtomicBool::new(true));
    let server = switched(&up).await;
    let mut watched = Watched::start(settings_for_silence());
    watched.rounds.track_stored(&six(&server));
    until("a visit of each", || watched.rounds.status().visits >= 6).await;
    assert_eq!(watched.rounds.brake().visited, 6);
    assert!(!watched.rounds.brake().on);
    up.store(false, Ordering::SeqCst);
    until("all evictions are held", || watched.rounds.brake().held == 6).await;
    let brake = watched.rounds.brake();
    assert!(brake.on && brake.since.is_some() && brake.silent == 6, "{brake:?}");
    assert_eq!(healths(watched.pending()), [Health::Suspect; 6]);
    up.store(true, Ordering::SeqCst);
    until("the brake lets go", || !watched.rounds.brake().on).await;
    until("all is well", || watched.rounds.brake().silent == 0).await;
    let observed = healths(watched.stop().await);
    assert_eq!(observed, [Health::Passing; 6], "nobody was evicted");
}

/// A cut that keeps us from hearing those we visit keeps us from hearing those who call in.
#[tokio::test]
async fn a_blackout_evicts_nobody_who_calls_in() {
    const TTL: Duration = Duration::from_millis(200);
    let up = Arc::new(AtomicBool::new(false));
    let server = switched(&up).await;
    let mut watched = Watched::start(settings_for_silence());
    watched.rounds.track_stored(&six(&server));
    until("all evictions are held", || watched.rounds.brake().held == 6).await;
    watched.rounds.track(&record("order-1", "10.0.0.7:6060", Check::ttl(TTL), Health::Passing));
    tokio::time::sleep(5 * TTL).await;
    assert_eq!(healths(watched.pending()), [Health::Suspect; 6]);
    up.store(true, Ordering::SeqCst);
    let mut flips = Vec::new();
    while flips.len() < 7 {
        flips.push(watched.flip().await);
    }
    let evicted: Vec<_> = flips.iter().filter(|(health, ..)| *health == Health::Evicted).collect();
    assert!(matches!(evicted[..], [(_, Class::Ttl, _)]), "it never called in: {flips:?}");
    watched.stop().await;
}

/// Eight instances after their first visit, the next of which no test lives to see; the last one on a server of its own.
async fn eight_visited(all: &Server, last: &Server) -> (Watched, Arc<Record>) {
    let mut records: Vec<_> = (0..7).map(|n| http(&format!("product-{n}"), all.addr, Health::Passing)).collect();
    let reported = http("product-7", last.addr, Health::Passing);
    records.push(Arc::clone(&reported));
    let timeout = Duration::from_millis(300);
    let watched = Watched::start(Settings { timeout, ..settings() });
    watched.rounds.track_stored(&records);
    until("a visit of each", || watched.rounds.status().visits >= 8).await;
    (watched, reported)
}

#[tokio::test]
async fn one_of_eight_that_hangs_is_evicted_without_waiting_for_the_round() {
    let (up, last_up) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (all, last) = (switched(&up).await, switched(&last_up).await);
    let (mut watched, reported) = eight_visited(&all, &last).await;
    last_up.store(false, Ordering::SeqCst);
    watched.rounds.nudge(&reported.key(), Nudge::Reported(Trouble::Timeout));
    assert_eq!(watched.flip().await.0, Health::Suspect);
    assert_eq!(watched.flip().await.0, Health::Evicted, "kept although others answer");
    // 8 first visits, 2 of the silent one, and at least three of the four others who were asked; perhaps some on probation already.
    let visits = watched.rounds.status().visits;
    assert!((13..20).contains(&visits), "{visits}");
    assert!(!watched.rounds.brake().on);
    watched.stop().await;
}

#[tokio::test]
async fn a_blackout_that_a_report_discovers_evicts_nobody() {
    let up = Arc::new(AtomicBool::new(true));
    let (all, last) = (switched(&up).await, switched(&up).await);
    let (watched, reported) = eight_visited(&all, &last).await;
    up.store(false, Ordering::SeqCst);
    watched.rounds.nudge(&reported.key(), Nudge::Reported(Trouble::Timeout));
    until("those who were asked are held, too", || watched.rounds.brake().held >= 5).await;
    let brake = watched.rounds.brake();
    assert!(brake.on && brake.visited == 8 && (5..=8).contains(&brake.silent), "{brake:?}");
    let observed = healths(watched.stop().await);
    assert!(observed.iter().all(|health| *health == Health::Suspect), "{observed:?}");
}

#[tokio::test]
async fn the_brake_lets_go_at_its_limit() {
    let server = Server::silent().await;
    let mut watched = Watched::start(Settings { brake_limit: Duration::from_secs(2), ..settings_for_silence() });
    watched.rounds.track_stored(&six(&server));
    until("the brake is on", || watched.rounds.brake().on).await;
    let mut evicted = 0;
    while evicted < 6 {
        let (health, class, _) = watched.flip().await;
        assert_eq!(class, Class::Silence);
        evicted += u32::from(health == Health::Evicted);
    }
    let brake = watched.rounds.brake();
    assert!(!brake.on && brake.held == 0 && brake.visited == 0, "{brake:?}");
    watched.stop().await;
}

#[tokio::test]
async fn evidence_from_the_instances_is_never_held() {
    let silent = Server::silent().await;
    let mut watched = Watched::start(settings_for_silence());
    let mut records = six(&silent);
    records.push(http("product-dead", nowhere().await, Health::Starting));
    watched.rounds.track_stored(&records);
    until("the brake is on", || watched.rounds.brake().on).await;
    watched.pending();
    let dead = record("product-refused", &nowhere().await.to_string(), Check::default(), Health::Suspect);
    watched.rounds.track(&dead);
    loop {
        if let Observation::Health { key, health, class, .. } = watched.next().await
            && health == Health::Evicted
        {
            assert_eq!((key, class), (dead.key(), Class::Refused));
            break;
        }
    }
    assert!(watched.rounds.brake().on);
    watched.stop().await;
}

#[tokio::test]
async fn a_single_silent_instance_is_evicted() {
    let server = Server::silent().await;
    let mut watched = Watched::start(settings_for_silence());
    watched.rounds.track_stored(&six(&server)[..1]);
    assert_eq!(watched.flip().await.0, Health::Suspect);
    let evicted = (Health::Evicted, Class::Silence, "GET /health: no answer in 400ms".to_owned());
    assert_eq!(watched.flip().await, evicted);
    watched.stop().await;
}
