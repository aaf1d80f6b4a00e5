//! What the tests of all services share: real processes, a real discovery server, and waiting for conditions.
//!
//! For tests only: whatever goes wrong panics.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has failed"
)]

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use roundsman::{Discovery, Instance, Query, Scope};
use roundsman_discovery::{Config, Server};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Longest time that any condition is waited for; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    files: TempDir,
}

impl Process {
    /// Starts a service on a free port and waits until it serves.
    pub async fn start(binary: &str, discovery: SocketAddr) -> Self {
        Self::start_with(binary, discovery, &[]).await
    }

    /// The same at this address.
    pub async fn start_at(binary: &str, listen: SocketAddr, discovery: SocketAddr) -> Self {
        Self::start_with(binary, discovery, &["--listen", &listen.to_string()]).await
    }

    /// The same with more flags.
    pub async fn start_with(binary: &str, discovery: SocketAddr, flags: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (ready, log) = (files.path().join("ready"), std::fs::File::create(files.path().join("log")).unwrap());
        let mut command = Command::new(binary);
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let child = command
            .args(flags)
            .args(["--discovery", &discovery.to_string(), "--log-format", "json", "--ready-file"])
            .arg(&ready)
            .env_remove("RUST_LOG")
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
        eventually("the process to serve", async || ready.exists()).await;
        let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        let address = ready["http.addr"].as_str().unwrap().parse().unwrap();
        Self { address, child, files }
    }

    /// What it has logged so far, line by line.
    #[must_use]
    pub fn log(&self) -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(self.files.path().join("log")).unwrap();
        // The last line may not be whole yet.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(self) -> ExitStatus {
        self.terminate_and_read().await.0
    }

    /// The same, with everything that it has logged.
    pub async fn terminate_and_read(mut self) -> (ExitStatus, Vec<serde_json::Value>) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        (status, self.log())
    }

    /// The URL of a path of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A discovery server that forgets everything when it ends.
pub async fn server() -> Server {
    server_at("127.0.0.1:0".parse().unwrap()).await
}

/// The same at this address.
pub async fn server_at(rpc: SocketAddr) -> Server {
    let http = "127.0.0.1:0".parse().unwrap();
    // Visits have the whole time between two, so that none is late on a busy machine.
    let timeout = Config::default().interval;
    Server::start(Config { rpc, http, store: "memory:".parse().unwrap(), timeout, ..Config::default() }).await.unwrap()
}

/// Everything known of a service, those on probation included.
pub async fn all(discovery: &Discovery, service: &str) -> Vec<Instance> {
    let query = Query::service(service.parse().unwrap()).scope(Scope::All);
    match discovery.list(query).await {
        Ok(instances) => instances.iter().map(|instance| Instance::clone(instance)).collect(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => panic!("cannot list {service}: {error}"),
    }
}

/// Waits until so many instances of a service are handed out.
pub async fn available(discovery: &Discovery, service: &str, count: usize) {
    eventually("the instances to be handed out", async || {
        all(discovery, service).await.iter().filter(|instance| instance.status.is_available()).count() == count
    })
    .await;
}

/// Runs a service that is expected to end by itself; its exit code and what it said.
pub async fn run(binary: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await.expect("it ends").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The binary of another service, which Cargo puts beside that of this one.
#[must_use]
pub fn sibling(binary: &str, name: &str) -> String {
    let path = Path::new(binary).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build -p roundsman-{name}", path.display());
    path.to_str().unwrap().to_owned()
}

/// A client without a proxy.
#[must_use]
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A loopback address on which nobody listens.
pub async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Waits for a condition.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
