//! Instances that are processes, killed and frozen under a steady load of calls.

use std::{
    io::BufRead,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use futures::future::join_all;
use roundsman::{Discovery, InstanceId, NewInstance, http::Error};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::support::{HANG, client, connect, eventually, server, soon};

/// How many call at a time, each with this pause between two calls.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);

/// An instance of `product` in a process of its own. Killed when dropped.
struct Instance {
    id: InstanceId,
    child: Child,
}

/// What became of the calls.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    failed: Vec<Error>,
}

impl Instance {
    /// Runs the ignored test below in a process of its own.
    async fn start(discovery: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "http_deaths::serves", "--ignored", "--nocapture"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(format!("{discovery}\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let id = loop {
            let line = soon(lines.next_line()).await.unwrap().expect("it serves");
            if let Some((_, id)) = line.split_once("serving ") {
                break id.parse().unwrap();
            }
        };
        Self { id, child }
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by the others"]
async fn serves() {
    let mut discovery = String::new();
    std::io::stdin().lock().read_line(&mut discovery).unwrap();
    let discovery = connect(discovery.trim()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let new = NewInstance::new("product", listener.local_addr().unwrap()).unwrap();
    let registration = discovery.register(new).await.unwrap();
    println!("serving {}", registration.id());
    let routes = Router::new().route("/health", get("well")).route("/", get("here"));
    axum::serve(listener, routes).await.unwrap();
}

/// Calls until it is told to stop.
async fn load(discovery: &Discovery, stop: &CancellationToken, ended: &AtomicUsize) -> Tally {
    let callers = (0..CALLERS).map(|_| {
        let product = discovery.http("product").timeout(HANG).wait_for_instance(HANG);
        async move {
            let mut tally = Tally::default();
            while !stop.is_cancelled() {
                match soon(product.get("/").send()).await {
                    Ok(answer) if answer.status().is_success() => tally.answered += 1,
                    Ok(answer) => panic!("{}", answer.status()),
                    Err(error) => tally.failed.push(error),
                }
                ended.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
            tally
        }
    });
    let tallies = join_all(callers).await;
    tallies.into_iter().fold(Tally::default(), |mut all, tally| {
        all.answered += tally.answered;
        all.failed.extend(tally.failed);
        all
    })
}

/// Three instances under load, while this happens to the first of them.
async fn no_call_fails_while(happens: impl AsyncFnOnce(Instance, &Discovery) -> Option<Instance>) {
    no_call_to_fails_while(3, async |first, discovery: &Discovery, _: &str| happens(first, discovery).await).await;
}

/// So many instances under load, while this happens to the first of them.
async fn no_call_to_fails_while(
    count: usize,
    happens: impl AsyncFnOnce(Instance, &Discovery, &str) -> Option<Instance>,
) {
    let server = server().await;
    let discovery = client(&server).await;
    let addr = server.rpc_addr().to_string();
    let mut all = join_all((0..count).map(|_| Instance::start(&addr))).await;
    let first = all.remove(0);
    let resolver = discovery.resolver("product").await.unwrap();
    eventually("all are handed out", async || resolver.instances().len() == count).await;
    let (stop, ended) = (CancellationToken::new(), AtomicUsize::new(0));
    let calls = async |more: usize| {
        let enough = ended.load(Ordering::Relaxed) + more;
        eventually("they call", async || ended.load(Ordering::Relaxed) >= enough).await;
    };
    let story = async {
        calls(200).await;
        let kept = happens(first, &discovery, &addr).await;
        calls(100).await;
        stop.cancel();
        kept
    };
    let (tally, kept) = tokio::join!(load(&discovery, &stop, &ended), story);
    assert!(tally.failed.is_empty() && tally.answered > 300, "{tally:?}");
    drop(kept);
    discovery.close().await;
    server.stop().await;
}

/// Whether it is handed out, as we know.
async fn is_there(discovery: &Discovery, id: &InstanceId) -> bool {
    let resolver = discovery.resolver("product").await.unwrap();
    let instances = resolver.instances();
    instances.iter().any(|instance| instance.id == *id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_an_instance_is_killed() {
    no_call_fails_while(async |instance: Instance, discovery: &Discovery| {
        instance.signal("-KILL").await;
        let id = instance.id.clone();
        eventually("it is out of the list", async || !is_there(discovery, &id).await).await;
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_an_instance_is_frozen() {
    no_call_fails_while(async |instance: Instance, discovery: &Discovery| {
        instance.signal("-STOP").await;
        let id = instance.id.clone();
        eventually("it is out of the list", async || !is_there(discovery, &id).await).await;
        instance.signal("-CONT").await;
        eventually("it is back", async || is_there(discovery, &id).await).await;
        eventually("it is called again", async || {
            let answer = discovery.http("product").get("/").send().await.unwrap();
            Arc::clone(answer.instance()).id == id
        })
        .await;
        Some(instance)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_only_instance_is_killed_and_started_again() {
    no_call_to_fails_while(1, async |instance: Instance, _: &Discovery, addr: &str| {
        instance.signal("-KILL").await;
        Some(Instance::start(addr).await)
    })
    .await;
}
