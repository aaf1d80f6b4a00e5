//! Everything around a service that has nothing to do with what it serves.
//!
//! A service author brings a name, a port and a router. The rest is the same for all: a command line, logs, signals,
//! registering and staying registered, `/health`, a ready file for whoever started it, a probe for containers, and leaving
//! so that no caller notices.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use axum::{Router, routing::get};
//! use roundsman::service::{App, Start};
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     App::new("greeter", 8080).version(env!("CARGO_PKG_VERSION")).run(start).await
//! }
//!
//! async fn start(start: Start) -> Result<Router, roundsman::Error> {
//!     let products = start.discovery.resolver("product").in_background()?;
//!     start.health.add("products", {
//!         let products = products.clone();
//!         move || {
//!             let some = !products.instances().is_empty();
//!             async move { if some { Ok(()) } else { Err("nobody sells") } }
//!         }
//!     });
//!     Ok(Router::new().route("/hello", get(async move || format!("{} sell", products.instances().len()))))
//! }
//! ```
//!
//! # Settings
//!
//! A flag counts before its environment variable, that before what the code says (the methods of [`App`]), and that before
//! the default. Tags and metadata are added to those of the code, which cannot be taken off. A variable that is empty is as good
//! as none. What breaks a rule ends the program with one line that names the flag or the variable.
//!
//! | flag | environment | default | meaning |
//! |---|---|---|---|
//! | `--listen ADDR` | `ROUNDSMAN_LISTEN` | the service's port on 127.0.0.1 | Where to listen; port 0 picks a free one |
//! | `--advertise HOST:PORT` | `ROUNDSMAN_ADVERTISE` | the listen address | The address that others reach this instance at |
//! | `--health-listen ADDR` | `ROUNDSMAN_HEALTH_LISTEN` | none | A second place to answer /health at, and nothing else |
//! | `--discovery HOST:PORT` | `ROUNDSMAN_SERVER` | 127.0.0.1:5555 | Discovery servers to register with and to find others by; several separated by commas |
//! | `--namespace NAME` | `ROUNDSMAN_NAMESPACE` | default | The namespace to register in and to find others in |
//! | `--discovery-timeout TIME` | `ROUNDSMAN_DISCOVERY_TIMEOUT` | 2s | How long a call to discovery may take |
//! | `--snapshot-file PATH` | `ROUNDSMAN_SNAPSHOT_FILE` | none | Where it saves whom it knows, for a start without discovery |
//! | `--empty-grace TIME` | `ROUNDSMAN_EMPTY_GRACE` | 30s | How long lists are kept against the word of a server that has lost its memory |
//! | `--breaker RULES` | `ROUNDSMAN_BREAKER` | failures=5,ratio=0.5,calls=20,window=10s,ejection=1s,longest=1m,slow-start=10s | When instances that fail are passed over: any of these rules, or off |
//! | `--notice TIME` | `ROUNDSMAN_NOTICE` | 500ms | How long callers are given to notice that it leaves |
//! | `--grace TIME` | `ROUNDSMAN_GRACE` | 10s | How long what is under way is waited for at the end |
//! | `--id ID` | `ROUNDSMAN_ID` | a new one at each start | The instance's id, unique in the namespace |
//! | `--service-version VERSION` | `ROUNDSMAN_SERVICE_VERSION` | that of the program | The version it registers |
//! | `--zone ZONE` | `ROUNDSMAN_ZONE` | none | Where it runs |
//! | `--weight N` | `ROUNDSMAN_WEIGHT` | 1 | Its share of lookups, relative to the service's other instances |
//! | `--tag TAG` | `ROUNDSMAN_TAGS` | none | A word to be found by; may be given several times |
//! | `--meta KEY=VALUE` | `ROUNDSMAN_META` | none | A metadata entry; may be given several times |
//! | `--ready-file PATH` | `ROUNDSMAN_READY_FILE` | none | Where the addresses it really listens on are written, as JSON, once it serves |
//! | `--log-format FORMAT` | `ROUNDSMAN_LOG_FORMAT` | human | How log lines look, human or json; RUST_LOG filters |
//!
//! In a variable, tags and entries are separated by commas. Besides there are `--probe`, which serves nothing and asks the one that
//! listens for its health, and the flags of the service's own, see [`App::flags`]: where one has the name of one of these, it
//! takes its place, and the variable remains.
//!
//! Exit codes: 0 done, 1 failed, with one line on standard error that says why, 2 wrong usage.

mod app;
mod line;
mod logs;
mod probe;
mod process;
mod settings;
mod values;

use std::{error::Error as StdError, net::SocketAddr, time::Duration};

use tokio_util::task::TaskTracker;

pub use self::app::App;
use crate::{discovery::Discovery, health::Health, registration::Registration};

/// How long a call to discovery may take unless told otherwise, saying goodbye included.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long requests and [tasks](Start::tasks) under way are waited for at the end, unless told otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// Why a service could not start, or go on.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// What a service is given to start with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Start<F = ()> {
    /// The client, to find others with. It connects in the background: discovery need not be there yet.
    pub discovery: Discovery,
    /// The registration, which begins once the service serves: wait for nothing that needs it before that.
    pub registration: Registration,
    /// What `/health` answers. It begins without checks.
    pub health: Health,
    /// For what goes on after a request was answered; waited for at the end, for at most [`GRACE`] unless told otherwise.
    pub tasks: TaskTracker,
    /// Where it listens.
    pub listening: SocketAddr,
    /// Where it answers `/health` besides, if it does.
    pub health_listening: Option<SocketAddr>,
    /// The flags of its own.
    pub flags: F,
}
