//! Instances that fail their callers: passed over here, reported there, and judged by the visit alone.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use roundsman::{Discovery, InstanceStatus, NewInstance, Query, Scope, Trouble};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::{StoppedClock, client, connect, eventually, instance, patient_server, server, soon};

/// A program that answers every visit, until it hangs: then it accepts, reads and says nothing.
struct Program {
    addr: SocketAddr,
    hangs: Arc<AtomicBool>,
    visits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Program {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (hangs, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (hanging, visited) = (Arc::clone(&hangs), Arc::clone(&visits));
        tasks.spawn(async move {
            let mut visitors = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (hanging, visited) = (Arc::clone(&hanging), Arc::clone(&visited));
                visitors.spawn(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        visited.fetch_add(1, Ordering::Relaxed);
                        if hanging.load(Ordering::Relaxed) {
                            std::future::pending::<()>().await;
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        Self { addr, hangs, visits, _tasks: tasks }
    }

    /// What it registers as: rounds alone would take a minute to find out that it hangs.
    fn registration(&self) -> NewInstance {
        NewInstance::new("product", self.addr).unwrap().interval(Duration::from_secs(60))
    }
}

async fn passing(discovery: &Discovery, count: usize) {
    let query = Query::service("product".parse().unwrap());
    eventually("all of them are handed out", async || {
        discovery.list(query.clone()).await.is_ok_and(|list| list.len() == count)
    })
    .await;
}

/// Programs that are registered and handed out, whoever holds their registrations or not.
async fn programs<const N: usize>(caller: &Discovery) -> [Program; N] {
    let mut started = Vec::new();
    for _ in 0..N {
        let program = Program::start().await;
        // Dropped, it stays registered.
        drop(caller.register(program.registration()).await.unwrap());
        started.push(program);
    }
    passing(caller, N).await;
    started.try_into().unwrap_or_else(|_| unreachable!())
}

#[tokio::test]
async fn a_hung_instance_is_out_of_everybodys_list_after_one_report() {
    let server = server().await;
    let (caller, other) = (client(&server).await, client(&server).await);
    let programs: [Program; 3] = programs(&caller).await;
    let products = caller.resolver("product").await.unwrap();
    let elsewhere = other.resolver("product").await.unwrap();

    programs[0].hangs.store(true, Ordering::Relaxed);
    let pick = loop {
        let pick = products.pick().unwrap();
        if pick.address.socket_addr() == Some(programs[0].addr) {
            break pick;
        }
    };
    let hung = pick.id.clone();
    pick.failed_by(Trouble::Timeout);
    // A minute would be the next round; the harness gives up after half of that.
    eventually("it is gone for the other caller", async || {
        let instances = elsewhere.instances();
        instances.len() == 2 && instances.iter().all(|instance| instance.id != hung)
    })
    .await;
    let all = caller.list(Query::service("product".parse().unwrap()).scope(Scope::All)).await.unwrap();
    let evicted = all.iter().find(|instance| instance.id == hung).unwrap();
    assert_eq!(evicted.status, InstanceStatus::Evicted);
    assert!(evicted.reason.contains("no answer"), "{}", evicted.reason);
    server.stop().await;
}

#[tokio::test]
async fn reports_hurry_visits_and_evict_nobody() {
    let server = patient_server().await;
    let caller = client(&server).await;
    let programs: [Program; 2] = programs(&caller).await;
    let last = Program::start().await;
    let _last = caller.register(NewInstance::new("order", last.addr).unwrap()).await.unwrap();
    let orders = caller.resolver("order").await.unwrap();
    soon(orders.wait_for_first()).await.unwrap();
    let before: usize = programs.iter().map(|program| program.visits.load(Ordering::Relaxed)).sum();
    let products = caller.resolver("product").await.unwrap();
    // At most one report a second of each: there is only this moment.
    let clock = StoppedClock::new();
    for _ in 0..500 {
        products.pick().unwrap().failed_by(Trouble::Reset);
    }
    drop(clock);
    let visits = || programs.iter().map(|program| program.visits.load(Ordering::Relaxed)).sum::<usize>() - before;
    eventually("both are visited", async || visits() >= 2).await;
    // Reports are sent one after the other: when this one has arrived, none of them is left.
    let seen = last.visits.load(Ordering::Relaxed);
    orders.pick().unwrap().failed_by(Trouble::Reset);
    eventually("the last is visited", async || last.visits.load(Ordering::Relaxed) > seen).await;
    assert!(visits() <= 4, "500 failures, {} visits", visits());
    assert_eq!(products.ejected().len(), 1, "calls to both failed, and half of a service stays");
    assert_eq!(products.instances().len(), 2, "the visits found nothing");
    assert!(products.instances().iter().all(|instance| instance.status == InstanceStatus::Passing));
    server.stop().await;
}

#[tokio::test]
async fn an_open_circuit_is_reported_though_nobody_says_what_happened() {
    let server = server().await;
    let caller = client(&server).await;
    let programs: [Program; 2] = programs(&caller).await;
    let products = caller.resolver("product").await.unwrap();
    programs[1].hangs.store(true, Ordering::Relaxed);
    while products.ejected().is_empty() {
        let pick = products.pick().unwrap();
        if pick.address.socket_addr() == Some(programs[1].addr) { pick.failed() } else { pick.succeeded() }
    }
    eventually("it is evicted", async || products.instances().len() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn failures_without_any_server_hold_nobody_up() {
    let server = server().await;
    let discovery = connect(server.rpc_addr()).await.unwrap();
    for port in [7070, 7071] {
        drop(discovery.register(instance("product", port)).await.unwrap());
    }
    let products = discovery.resolver("product").await.unwrap();
    server.stop().await;
    for _ in 0..1_000 {
        products.pick().unwrap().failed_by(Trouble::Refused);
    }
    assert_eq!(products.ejected().len(), 1);
    soon(discovery.close()).await;
    products.pick().unwrap().failed_by(Trouble::Refused);
}

#[tokio::test]
async fn what_drains_is_not_picked() {
    let server = server().await;
    let discovery = client(&server).await;
    let leaving = discovery.register(instance("product", 7070)).await.unwrap();
    let staying = discovery.register(instance("product", 7071)).await.unwrap();
    let products = discovery.resolver("product").await.unwrap();
    leaving.drain(true).await.unwrap();
    eventually("it is told", async || products.instances().len() == 1).await;
    for _ in 0..100 {
        assert_eq!(products.pick().unwrap().id, *staying.id());
    }
    server.stop().await;
}
