//! Instances that are visited for their own id, and programs that take over their addresses.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use roundsman::{
    Check, Discovery, Error, Event, Health, INSTANCE_HEADER, InstanceStatus, NewInstance, Query, Registration, Scope,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{client, eventually, nowhere, patient_server, server, soon};

/// What a program answers to a visit, besides 200.
#[derive(Clone)]
enum Who {
    /// From this, as a service does.
    Service(Health),
    /// Without the header.
    Nameless,
    /// Another instance.
    Other,
}

/// A program that answers every request. Dropped, it is killed: its connections break with it.
struct Program {
    who: watch::Sender<Who>,
    visits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

// === impl Program ===

impl Program {
    async fn start(address: SocketAddr, who: Who) -> Self {
        // Whoever listened there before is about to be gone, and may not quite be yet.
        let listener = soon(async {
            loop {
                match TcpListener::bind(address).await {
                    Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    bound => return bound.unwrap(),
                }
            }
        })
        .await;
        let (who, answers) = watch::channel(who);
        let visits = Arc::new(AtomicUsize::new(0));
        let (counter, mut tasks) = (Arc::clone(&visits), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answers.clone(), Arc::clone(&counter)));
            }
        });
        Self { who, visits, _tasks: tasks }
    }

    /// Waits for so many visits from now on.
    async fn visited(&self, times: usize) {
        let enough = self.visits.load(Ordering::Relaxed) + times;
        eventually("it is visited", async || self.visits.load(Ordering::Relaxed) >= enough).await;
    }
}

/// Until it is somebody else's turn to answer, which makes the server call anew at once.
async fn serve(mut stream: TcpStream, mut turns: watch::Receiver<Who>, visits: Arc<AtomicUsize>) {
    let who = turns.borrow_and_update().clone();
    let (mut request, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        let read = tokio::select! {
            read = stream.read(&mut piece) => read.unwrap_or_default(),
            _ = turns.changed() => return,
        };
        if read == 0 {
            return;
        }
        request.extend_from_slice(&piece[..read]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let header = match &who {
            Who::Service(health) => health.report().await.instance_header(),
            Who::Nameless => None,
            Who::Other => Some("another-1, another-2".to_owned()),
        };
        let header = header.map_or(String::new(), |ids| format!("{INSTANCE_HEADER}: {ids}\r\n"));
        let answer = format!("HTTP/1.1 200 OK\r\n{header}content-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        visits.fetch_add(1, Ordering::Relaxed);
    }
}

/// An instance of `product` at this address that is visited for its id, and what answers for it.
async fn product(discovery: &Discovery, address: SocketAddr) -> (Registration, Health) {
    let instance = NewInstance::new("product", address).unwrap().identified();
    let (registration, health) = (discovery.register_in_background(instance).unwrap(), Health::new());
    health.follow(&registration);
    soon(registration.registered()).await;
    (registration, health)
}

async fn status(discovery: &Discovery) -> Option<InstanceStatus> {
    let query = Query::service("product".parse().unwrap()).scope(Scope::All);
    let all = discovery.list(query).await.unwrap();
    assert!(all.len() <= 1, "{all:?}");
    all.first().map(|instance| instance.status)
}

#[tokio::test]
async fn health_names_who_answers() {
    let server = server().await;
    let discovery = client(&server).await;
    let register = async |id: &str| {
        let instance = NewInstance::new(id, nowhere().await).unwrap().check(Check::none()).id(id).unwrap();
        discovery.register(instance).await.unwrap()
    };
    let health = Health::new();
    assert_eq!(health.report().await.instance_header(), None);
    let (product, order) = (register("product-1").await, register("order-1").await);
    health.follow(&product);
    health.follow(&order);
    assert_eq!(health.report().await.instance_header().unwrap(), "order-1, product-1");
    product.draining().await.unwrap();
    assert_eq!(health.report().await.instance_header().unwrap(), "order-1, product-1", "whatever they do");
    let json = serde_json::to_string(&health.report().await).unwrap();
    assert_eq!(json, r#"{"status":"passing","checks":{}}"#, "and the body stays as it was");
    #[cfg(feature = "axum")]
    {
        use axum::response::IntoResponse;
        let response = health.report().await.into_response();
        assert_eq!(response.headers()[INSTANCE_HEADER], "order-1, product-1");
        assert!(!Health::new().report().await.into_response().headers().contains_key(INSTANCE_HEADER));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_identified_instance_that_answers_with_its_id_passes() {
    let server = patient_server().await;
    let discovery = client(&server).await;
    let address = nowhere().await;
    let (registration, health) = product(&discovery, address).await;
    let _program = Program::start(address, Who::Service(health)).await;
    eventually("it passes", async || status(&discovery).await == Some(InstanceStatus::Passing)).await;
    let all = discovery.list(Query::default()).await.unwrap();
    let expect = all[0].check.expect.as_deref().unwrap().as_header().unwrap();
    assert_eq!(expect, (INSTANCE_HEADER, registration.id().as_str()));
    // It may change everything but that.
    registration.update(|instance| instance.weight(2)).await.unwrap();
    let refused = registration.update(|instance| instance.expect(None)).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(invalid) if invalid.field == "check"));
    server.stop().await;
}

#[tokio::test]
async fn an_answer_without_its_id_evicts_with_a_reason() {
    let server = patient_server().await;
    let discovery = client(&server).await;
    for stranger in [Who::Nameless, Who::Other] {
        let address = nowhere().await;
        let (registration, health) = product(&discovery, address).await;
        let program = Program::start(address, Who::Service(health)).await;
        eventually("it passes", async || status(&discovery).await == Some(InstanceStatus::Passing)).await;
        let mut changes = discovery.watch(Query::service("product".parse().unwrap())).unwrap();
        assert!(matches!(soon(changes.next()).await, Some(Event::Snapshot(all)) if all.len() == 1));
        program.who.send_replace(stranger);
        let reason = loop {
            if let Some(Event::Removed(removed)) = soon(changes.next()).await {
                break removed.reason;
            }
        };
        assert!(reason.contains("another service answers here"), "{reason}");
        registration.close().await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn whoever_takes_over_the_address_is_not_mistaken_for_it() {
    let server = patient_server().await;
    let discovery = client(&server).await;
    for stranger in [Who::Nameless, Who::Other] {
        let address = nowhere().await;
        // Nobody keeps it registered, as after the death of its process.
        let (registration, health) = product(&discovery, address).await;
        let id = registration.id().clone();
        drop(registration);
        let ours = Program::start(address, Who::Service(health.clone())).await;
        eventually("it passes", async || status(&discovery).await == Some(InstanceStatus::Passing)).await;

        drop(ours);
        eventually("it is missed", async || status(&discovery).await == Some(InstanceStatus::Evicted)).await;
        let stranger = Program::start(address, stranger).await;
        stranger.visited(3).await;
        assert_eq!(status(&discovery).await, Some(InstanceStatus::Evicted), "another one answers");

        drop(stranger);
        let _ours = Program::start(address, Who::Service(health)).await;
        eventually("it passes again", async || status(&discovery).await == Some(InstanceStatus::Passing)).await;
        discovery.deregister(&id).await.unwrap();
    }
    server.stop().await;
}
