//! The server under test: the release binary beside this one, as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    process::{PATIENCE, Process},
};

/// Where registrations last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store {
    Memory,
    Sqlite,
}

/// A server that serves.
#[derive(Debug)]
pub(crate) struct Server {
    /// Before the folder, so that it is stopped before its files go.
    pub(crate) process: Process,
    pub(crate) rpc: SocketAddr,
    /// From the start of the process to serving.
    pub(crate) started_in: Duration,
    folder: Arc<TempDir>,
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    store: Store,
    core: Core,
    flags: Vec<String>,
    folder: Option<Arc<TempDir>>,
}

// === impl Setup ===

impl Setup {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, core: Core::Any, flags: Vec::new(), folder: None }
    }

    pub(crate) fn on(self, core: Core) -> Self {
        Self { core, ..self }
    }

    pub(crate) fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// On the files that another server left.
    pub(crate) fn after(self, folder: Arc<TempDir>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    pub(crate) async fn start(self) -> Result<Server> {
        let folder = self.folder.map_or_else(|| folder().map(Arc::new), Ok)?;
        let (log, ready) = (folder.path().join("log"), folder.path().join("ready"));
        let store = match self.store {
            Store::Memory => "memory:".to_owned(),
            Store::Sqlite => format!("sqlite:{}", folder.path().join("roundsman.db").display()),
        };
        // A server that was killed leaves its own behind.
        drop(std::fs::remove_file(&ready));
        let mut command = Command::new(program()?);
        command.args(["serve", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", &store]).args(&self.flags);
        command.arg("--ready-file").arg(&ready).env_clear().current_dir(folder.path());
        let start = Instant::now();
        let mut process = Process::start("the server", self.core, command, &log)?;
        let addresses = wait_for(&mut process, &ready, &log, start).await?;
        let started_in = start.elapsed();
        let rpc = rpc_address(&addresses)?;
        Ok(Server { process, rpc, started_in, folder })
    }
}

// === impl Server ===

impl Server {
    /// Stops it as an operator would and hands over its files.
    pub(crate) async fn stop(self) -> Result<Arc<TempDir>> {
        self.process.stop().await?;
        Ok(self.folder)
    }
}

/// The release binary: cargo puts both into one folder.
fn program() -> Result<PathBuf> {
    let program = beside()?.join("roundsman");
    if program.exists() {
        return Ok(program);
    }
    Err(Failure::new(
        format!("looking for {}", program.display()),
        "build it with `cargo build --release -p roundsman-cli`",
    ))
}

fn beside() -> Result<PathBuf> {
    let me = std::env::current_exe().context("looking for this program")?;
    me.parent().map(Path::to_owned).ok_or_else(|| Failure::new("looking for this program", "it is in no folder"))
}

/// A folder on the disk that holds the build, which the system's temporary folder may not be.
pub(crate) fn folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("bench-").tempdir_in(beside()?).context("making a folder")
}

async fn wait_for(process: &mut Process, ready: &Path, log: &Path, start: Instant) -> Result<String> {
    loop {
        if let Ok(addresses) = std::fs::read_to_string(ready) {
            return Ok(addresses);
        }
        if process.has_ended() {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(Failure::new("starting the server", last));
        }
        if start.elapsed() > PATIENCE {
            return Err(Failure::Late { what: "the server's start".to_owned(), limit: PATIENCE });
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn rpc_address(ready: &str) -> Result<SocketAddr> {
    let addresses: serde_json::Value = serde_json::from_str(ready).context("reading the ready file")?;
    let address = addresses.get("rpc.addr").and_then(serde_json::Value::as_str).unwrap_or_default();
    address.parse().context("reading the ready file's rpc.addr")
}
