//! The server under test: the release binary beside this one, as a process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
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
    pub(crate) http: SocketAddr,
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
    /// For servers that know them.
    optional: Vec<(String, String)>,
    folder: Option<Arc<TempDir>>,
    rpc: SocketAddr,
    program: Option<PathBuf>,
}

/// Where the kernel chooses the port.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The server to measure where it is not the one beside this program.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// An older release, to be measured side by side.
static OLDER: OnceLock<PathBuf> = OnceLock::new();

/// The older release is this one. Only the first choice counts.
pub(crate) fn compare_with(program: PathBuf) {
    drop(OLDER.set(program));
}

/// The older release, if one was named.
pub(crate) fn compared_with() -> Option<&'static Path> {
    OLDER.get().map(PathBuf::as_path)
}

/// Measures this server instead of the one beside this program. Only the first choice counts.
pub(crate) fn choose(program: PathBuf) {
    drop(CHOSEN.set(program));
}

// === impl Setup ===

impl Setup {
    pub(crate) fn new(store: Store) -> Self {
        let (flags, optional) = (Vec::new(), Vec::new());
        Self { store, core: Core::Any, flags, optional, folder: None, rpc: ANY, program: None }
    }

    pub(crate) fn on(self, core: Core) -> Self {
        Self { core, ..self }
    }

    pub(crate) fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// The same for a flag that older servers do not have, which go without it.
    pub(crate) fn flag_if_known(mut self, name: &str, value: impl ToString) -> Self {
        self.optional.push((name.to_owned(), value.to_string()));
        self
    }

    /// Of another release than the one beside this program.
    pub(crate) fn release(self, program: Option<&Path>) -> Self {
        Self { program: program.map(Path::to_owned), ..self }
    }

    /// Where clients will look for it, as they do after a restart.
    pub(crate) fn at(self, rpc: SocketAddr) -> Self {
        Self { rpc, ..self }
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
        let program = self.program.map_or_else(program, Ok)?;
        let rpc = self.rpc.to_string();
        let mut command = Command::new(&program);
        command.args(["serve", "--rpc", &rpc, "--http", "127.0.0.1:0", "--store", &store]).args(&self.flags);
        command.args(known(&program, self.optional)?);
        command.arg("--ready-file").arg(&ready).env_clear().current_dir(folder.path());
        let start = Instant::now();
        let mut process = Process::start("the server", self.core, command, &log)?;
        let addresses = wait_for(&mut process, &ready, &log, start).await?;
        let started_in = start.elapsed();
        let (rpc, http) = (address(&addresses, "rpc.addr")?, address(&addresses, "http.addr")?);
        Ok(Server { process, rpc, http, started_in, folder })
    }
}

// === impl Server ===

impl Server {
    /// `kill -9`; hands over its files.
    pub(crate) fn kill(mut self) -> Result<Arc<TempDir>> {
        self.process.kill()?;
        Ok(self.folder)
    }

    /// Stops it as an operator would and hands over its files.
    pub(crate) async fn stop(self) -> Result<Arc<TempDir>> {
        self.process.stop().await?;
        Ok(self.folder)
    }
}

/// The release binary: cargo puts both into one folder.
fn program() -> Result<PathBuf> {
    if let Some(chosen) = CHOSEN.get() {
        return Ok(chosen.clone());
    }
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

fn address(ready: &str, name: &str) -> Result<SocketAddr> {
    let addresses: serde_json::Value = serde_json::from_str(ready).context("reading the ready file")?;
    let address = addresses.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    address.parse().context(format!("reading the ready file's {name}"))
}

/// Those of the flags that this release has.
fn known(program: &Path, flags: Vec<(String, String)>) -> Result<Vec<String>> {
    if flags.is_empty() {
        return Ok(Vec::new());
    }
    let help = Command::new(program).args(["serve", "--help"]).output().context("asking for the server's flags")?;
    let help = String::from_utf8_lossy(&help.stdout);
    let known = flags.into_iter().filter(|(name, _)| help.contains(&format!("{name} ")));
    Ok(known.flat_map(|(name, value)| [name, value]).collect())
}
