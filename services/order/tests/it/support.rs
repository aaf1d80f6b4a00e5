//! Real processes, a real discovery server, and waiting for conditions.

use std::{future::Future, net::SocketAddr, process::ExitStatus, time::Duration};

use roundsman::{Discovery, Instance, Query, Scope};
use roundsman_discovery::{Config, Server};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Longest time that any condition is waited for; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    _files: TempDir,
}

impl Process {
    /// Starts a service on a free port and waits until it serves.
    pub(crate) async fn start(binary: &str, discovery: SocketAddr) -> Self {
        Self::start_at(binary, "127.0.0.1:0".parse().unwrap(), discovery).await
    }

    pub(crate) async fn start_at(binary: &str, listen: SocketAddr, discovery: SocketAddr) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ready = files.path().join("ready");
        let child = Command::new(binary)
            .args(["--listen", &listen.to_string(), "--discovery", &discovery.to_string(), "--ready-file"])
            .arg(&ready)
            .env("RUST_LOG", "error")
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
        eventually("the process to serve", async || ready.exists()).await;
        let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        let address = ready["http.addr"].as_str().unwrap().parse().unwrap();
        Self { child, address, _files: files }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        self.child.wait().await.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A discovery server that forgets everything when it ends.
pub(crate) async fn server() -> Server {
    server_at("127.0.0.1:0".parse().unwrap()).await
}

pub(crate) async fn server_at(rpc: SocketAddr) -> Server {
    let http = "127.0.0.1:0".parse().unwrap();
    Server::start(Config { rpc, http, store: "memory:".parse().unwrap(), ..Config::default() }).await.unwrap()
}

/// Everything known of a service, those on probation included.
pub(crate) async fn all(discovery: &Discovery, service: &str) -> Vec<Instance> {
    let query = Query::service(service.parse().unwrap()).scope(Scope::All);
    match discovery.list(query).await {
        Ok(instances) => instances.iter().map(|instance| Instance::clone(instance)).collect(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => panic!("cannot list {service}: {error}"),
    }
}

/// Waits until so many instances of a service are handed out.
pub(crate) async fn available(discovery: &Discovery, service: &str, count: usize) {
    eventually("the instances to be handed out", async || {
        all(discovery, service).await.iter().filter(|instance| instance.status.is_available()).count() == count
    })
    .await;
}

/// A client without a proxy.
pub(crate) fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A loopback address on which nobody listens.
pub(crate) async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
