//! Instances that are registered by a host name, and the name servers that know where they are.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roundsman_health::{Class, Nudge, Observation, Settings};
use roundsman_protocol::Check;
use roundsman_registry::{Health, Record};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use crate::{
    nameserver::{NameServer, Say},
    support::{
        NEVER, OK, PATIENCE, Server, UNAVAILABLE, Watched, answer_all, key, nowhere, record, request, settings, until,
    },
    tls::serve,
};

const HOME: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Settings with a name server of our own.
fn asking(server: &NameServer, settings: Settings) -> Settings {
    Settings { name_servers: Some(vec![server.addr]), ..settings }
}

fn named(name: &str, port: u16, check: Check, health: Health) -> Arc<Record> {
    record(&format!("{name}-1"), &format!("{name}:{port}"), check, health)
}

/// Every check that is visited.
fn checks() -> [Check; 3] {
    [Check::default(), Check::tcp(), Check::https("/health")]
}

/// What one visit of `product` makes of what a name server says about it.
async fn verdict(say: Say, port: u16, check: Check) -> (Class, String) {
    let names = NameServer::start().await;
    names.say("product", say);
    let settings = Settings { failures: 1, ..settings() };
    let mut watched = Watched::start(asking(&names, settings));
    watched.rounds.track(&named("product", port, check, Health::Suspect));
    let (_, class, reason) = watched.flip().await;
    watched.stop().await;
    (class, reason)
}

#[tokio::test]
async fn an_instance_is_visited_where_its_name_says() {
    let server = Server::answering(OK).await;
    for check in [Check::default(), Check::tcp()] {
        let (class, reason) = verdict(Say::Address(HOME, 60), server.addr.port(), check).await;
        assert_eq!(class, Class::Passed, "{reason}");
    }
    let (class, reason) = verdict(Say::Address(HOME, 60), serve(OK).0.port(), Check::https("/health")).await;
    assert_eq!(class, Class::Passed, "{reason}");
}

#[tokio::test]
async fn a_name_server_that_answers_half_of_a_question_is_enough() {
    let server = Server::answering(OK).await;
    for check in [Check::default(), Check::tcp()] {
        let (class, reason) = verdict(Say::HalfAddress(HOME, 60), server.addr.port(), check).await;
        assert_eq!(class, Class::Passed, "{reason}");
    }
}

#[tokio::test]
async fn a_confirmed_address_that_is_refused_is_proof() {
    let port = nowhere().await.port();
    for check in checks() {
        let (class, reason) = verdict(Say::Address(HOME, 60), port, check).await;
        assert!(class == Class::Refused && reason.ends_with(": connection refused"), "{class:?} {reason}");
    }
    let unwell = Server::answering(UNAVAILABLE).await;
    assert_eq!(verdict(Say::Address(HOME, 60), unwell.addr.port(), Check::default()).await.0, Class::Status);
}

#[tokio::test]
async fn what_is_wrong_with_a_name_is_told() {
    for check in checks() {
        for (say, reason) in [
            (Say::NoName, "cannot resolve product: no such name"),
            (Say::NoAddress, "cannot resolve product: the name has no address"),
            (Say::Nothing, "cannot resolve product: no name server answers"),
            (Say::Failure, "cannot resolve product: the name server answers \"Server Failure\""),
            (Say::Garbage, "cannot resolve product: "),
        ] {
            let (class, found) = verdict(say, 80, check.clone()).await;
            assert!(class == Class::Unresolved && found.contains(reason), "{class:?} {found}");
        }
        let (class, reason) = verdict(Say::Address(METADATA, 60), 80, check).await;
        let forbidden = "product resolves to an address that is not allowed: 169.254.169.254 is link-local, which may \
                         not be visited";
        assert!(class == Class::Forbidden && reason.ends_with(forbidden), "{class:?} {reason}");
    }
}

/// Rounds that passed `product` once, with each visit on a new connection.
async fn passed(names: &NameServer, port: u16, check: Check, interval: Duration) -> Watched {
    let timeout = Duration::from_secs(8);
    let mut watched = Watched::start(Settings { max_kept: 0, interval, timeout, ..asking(names, settings()) });
    watched.rounds.track(&named("product", port, check, Health::Starting));
    assert_eq!(watched.flip().await.1, Class::Passed);
    watched
}

#[tokio::test]
async fn a_container_that_comes_back_elsewhere_is_not_evicted() {
    for check in [Check::default(), Check::tcp()] {
        let names = NameServer::start().await;
        names.say("product", Say::Address(HOME, 3_600));
        let server = Server::answering(OK).await;
        let port = server.addr.port();
        let mut watched = passed(&names, port, check.clone(), NEVER).await;
        let moved = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
        drop(server);
        let moved = Server::on(moved, |_, stream, seen| answer_all(stream, seen, OK));
        names.say("product", Say::Address(ELSEWHERE, 3_600));
        let visited_elsewhere = || {
            watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
            moved.seen.connections() > 0
        };
        until("it is visited elsewhere", visited_elsewhere).await;
        let visits = watched.log.all().len();
        watched.rounds.nudge(&key("product-1"), Nudge::SessionClosed);
        until("the visit ends", || watched.log.all().len() > visits).await;
        assert!(watched.log.all().iter().all(|class| *class == Class::Passed), "{:?}", watched.log.all());
        assert_eq!(watched.pending(), [], "nobody noticed");
        assert_eq!(watched.stop().await, []);
    }
}

/// The old address may also be silent, as one is at which there is nobody any more.
#[tokio::test]
async fn an_instance_that_moved_is_found_before_its_old_address_answers() {
    for behind_tls in [false, true] {
        let names = NameServer::start().await;
        names.say("product", Say::Address(HOME, 3_600));
        let hangs = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&hangs);
        let (there, _) = serve(OK);
        let server = Server::start(move |_, client, seen| {
            let told = Arc::clone(&told);
            async move {
                if told.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                if behind_tls { relayed(client, there).await } else { answer_all(client, seen, OK).await }
            }
        });
        let server = server.await;
        let port = server.addr.port();
        let moved = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
        let moved = Server::on(moved, move |_, client, seen| async move {
            if behind_tls { relayed(client, there).await } else { answer_all(client, seen, OK).await }
        });
        let check = if behind_tls { Check::https("/health") } else { Check::default() };
        let watched = passed(&names, port, check, Duration::from_millis(50)).await;
        hangs.store(true, Ordering::SeqCst);
        names.say("product", Say::Address(ELSEWHERE, 3_600));
        until("it is visited elsewhere", || moved.seen.connections() > 0).await;
        let visits = watched.log.all().len();
        until("it is visited on", || watched.log.all().len() > visits + 2).await;
        assert!(watched.log.all().iter().all(|class| *class == Class::Passed), "{:?}", watched.log.all());
        assert_eq!(watched.stop().await, []);
    }
}

#[tokio::test]
async fn a_name_that_is_gone_is_unresolved_and_its_address_forgotten() {
    let names = NameServer::start().await;
    names.say("product", Say::Address(HOME, 0));
    let server = Server::answering(OK).await;
    let mut watched = passed(&names, server.addr.port(), Check::default(), Duration::from_millis(50)).await;
    names.say("product", Say::NoName);
    let (_, class, reason) = watched.flip().await;
    let gone = "GET /health: cannot resolve product: no such name".to_owned();
    assert_eq!((class, reason), (Class::Unresolved, gone));
    assert_eq!(watched.rounds.status().names.known, 0);
    watched.stop().await;
}

#[tokio::test]
async fn a_name_that_moves_to_a_forbidden_address_is_refused() {
    for check in checks() {
        let names = NameServer::start().await;
        names.say("product", Say::Address(HOME, 3_600));
        let server = Server::answering(OK).await;
        let behind_tls = check.kind == roundsman_protocol::CheckKind::Https;
        let port = if behind_tls { serve_once().await } else { server.addr.port() };
        let mut watched = passed(&names, port, check, Duration::from_millis(50)).await;
        drop(server);
        names.say("product", Say::Address(METADATA, 3_600));
        let (class, reason) = loop {
            let (_, class, reason) = watched.flip().await;
            if class != Class::Reset {
                break (class, reason);
            }
        };
        assert_eq!(class, Class::Forbidden, "{reason}");
        assert!(reason.contains("169.254.169.254 is link-local"), "{reason}");
        watched.stop().await;
    }
}

/// A TLS server that takes one connection and no more. Gives its port.
async fn serve_once() -> u16 {
    let (inner, _) = serve(OK);
    let outer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outer.local_addr().unwrap().port();
    let mut relay = tokio::task::JoinSet::new();
    relay.spawn(async move {
        let (client, _) = outer.accept().await.unwrap();
        drop(outer);
        relayed(client, inner).await;
    });
    relay.detach_all();
    port
}

/// Hands a connection on.
async fn relayed(mut client: TcpStream, to: SocketAddr) {
    let mut server = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn while_no_name_server_answers_the_last_address_is_visited_on() {
    let names = NameServer::start().await;
    names.say("product", Say::Address(HOME, 0));
    let server = Server::answering(OK).await;
    let addr = server.addr;
    let settings = Settings { max_kept: 0, interval: Duration::from_millis(50), ..settings() };
    let mut watched = Watched::start(asking(&names, Settings { timeout: Duration::from_secs(2), ..settings }));
    watched.rounds.track(&named("product", addr.port(), Check::default(), Health::Starting));
    assert_eq!(watched.flip().await.1, Class::Passed);
    names.say("product", Say::Nothing);
    until("the silence is known", || watched.rounds.status().names.stale == 1).await;
    let visits = watched.log.all().len();
    until("it is visited on", || watched.log.all().len() > visits + 20).await;
    assert!(watched.log.all().iter().all(|class| *class == Class::Passed), "{:?}", watched.log.all());
    drop(server);
    let (health, class, reason) = watched.flip().await;
    assert_eq!((health, class), (Health::Suspect, Class::Silence), "{reason}");
    let silence = "at 127.0.0.1, the last known address of product; no name server answers";
    assert_eq!(reason, format!("GET /health: connection refused {silence}"));
    assert!(!watched.log.all().contains(&Class::Refused), "what cannot be confirmed is no proof");
    let status = watched.rounds.status().names;
    assert!(status.unanswered > 0 && status.asked > status.unanswered && status.known == 1, "{status:?}");

    // The name server is back and says the same: now it is proof.
    names.say("product", Say::Address(HOME, 0));
    until("it is refused", || watched.log.all().contains(&Class::Refused)).await;
    watched.stop().await;
}

/// The status line of somebody at an address that is not confirmed proves as little.
#[tokio::test]
async fn an_unwell_answer_from_a_last_known_address_is_silence() {
    let names = NameServer::start().await;
    names.say("product", Say::Address(HOME, 0));
    let unwell = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&unwell);
    let server = Server::start(move |_, mut stream, seen| {
        let told = Arc::clone(&told);
        async move {
            while request(&mut stream, &seen).await {
                let answer = if told.load(Ordering::SeqCst) { UNAVAILABLE } else { OK };
                let _ = stream.write_all(answer).await;
            }
        }
    });
    let server = server.await;
    let settings = Settings { max_kept: 0, interval: Duration::from_millis(50), ..settings() };
    let mut watched = Watched::start(asking(&names, Settings { timeout: Duration::from_secs(2), ..settings }));
    watched.rounds.track(&named("product", server.addr.port(), Check::default(), Health::Starting));
    assert_eq!(watched.flip().await.1, Class::Passed);
    names.say("product", Say::Nothing);
    until("the silence is known", || watched.rounds.status().names.stale == 1).await;
    unwell.store(true, Ordering::SeqCst);
    let (_, class, reason) = watched.flip().await;
    let silence = "GET /health: 503 at 127.0.0.1, the last known address of product; no name server answers";
    assert_eq!((class, reason.as_str()), (Class::Silence, silence));
    watched.stop().await;
}

/// Instances whose names nobody answers for.
fn dead(count: usize, port: u16) -> impl Iterator<Item = Arc<Record>> {
    (0..count).map(move |n| named(&format!("dead-{n}"), port, Check::default(), Health::Suspect))
}

#[tokio::test]
async fn names_without_a_name_server_do_not_harm_those_with_one() {
    let names = NameServer::start().await;
    let server = Server::answering(OK).await;
    let port = server.addr.port();
    let interval = Duration::from_millis(500);
    let settings = Settings { max_kept: 0, interval, timeout: Duration::from_secs(4), ..settings() };
    let mut watched = Watched::start(asking(&names, settings));
    for n in 0..20 {
        let name = format!("healthy-{n}");
        names.say(&name, Say::Address(HOME, 1));
        watched.rounds.track(&named(&name, port, Check::default(), Health::Passing));
    }
    until("the healthy ones are known", || watched.rounds.status().names.known == 20).await;
    dead(1_500, port).for_each(|dead| watched.rounds.track(&dead));
    until("most of the others were asked for", || watched.rounds.status().names.asked >= 1_000).await;
    let before = server.seen.requests();
    until("the healthy ones are visited on", || server.seen.requests() > before + 60).await;
    for observation in watched.pending() {
        if let Observation::Health { key, health, reason, .. } = observation {
            let harmed = health == Health::Evicted && key.id.as_str().starts_with("healthy");
            assert!(!harmed, "{key:?} {reason}");
        }
    }
    watched.stop().await;
}

#[tokio::test]
async fn a_name_with_a_name_server_is_found_behind_many_without() {
    let names = NameServer::start().await;
    let server = Server::answering(OK).await;
    names.say("product", Say::Address(HOME, 1));
    let watched = Watched::start(asking(&names, settings()));
    dead(300, server.addr.port()).for_each(|dead| watched.rounds.track(&dead));
    watched.rounds.track(&named("product", server.addr.port(), Check::default(), Health::Starting));
    until("it passes", || watched.log.all().contains(&Class::Passed)).await;
    watched.stop().await;
}

#[tokio::test]
async fn one_question_serves_all_who_ask() {
    let names = NameServer::start().await;
    names.say("product", Say::Address(HOME, 3_600));
    let server = Server::answering(OK).await;
    let watched = Watched::start(Settings { max_kept: 0, interval: NEVER, ..asking(&names, settings()) });
    for n in 0..50 {
        let address = format!("product:{}", server.addr.port());
        watched.rounds.track(&record(&format!("product-{n}"), &address, Check::default(), Health::Starting));
    }
    until("all were visited", || watched.log.all().len() >= 50).await;
    assert_eq!(names.questions(), 2, "one for A, one for AAAA");
    assert_eq!(watched.rounds.status().names.asked, 1);
    assert_eq!(watched.rounds.resolve("product", 80).await.unwrap(), [(HOME, 80).into()]);
    assert_eq!(names.questions(), 2);
    names.say("order", Say::Address(METADATA, 60));
    let refused = watched.rounds.resolve("order", 80).await.unwrap_err();
    assert!(refused.contains("169.254.169.254 is link-local"), "{refused}");
    watched.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_after_the_rounds() {
    let names = NameServer::start().await;
    let watched = Watched::start(asking(&names, settings()));
    let rounds = watched.rounds.clone();
    let stopped = async {
        until("a question is under way", || names.questions() > 0).await;
        let stop = watched.rounds.clone().stop();
        tokio::time::timeout(PATIENCE, stop).await.expect("a question outlives the rounds");
    };
    let (resolved, ()) = tokio::join!(rounds.resolve("product", 80), stopped);
    assert!(resolved.is_err());
    let questions = names.questions();
    assert!(rounds.resolve("order", 80).await.is_err());
    assert_eq!(names.questions(), questions);
}
