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
//! use roundsman::service::{Service, Start};
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     Service::new("greeter", 8080).version(env!("CARGO_PKG_VERSION")).run(start).await
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
//! # The command line
//!
//! | flag | environment | default |
//! |---|---|---|
//! | `--listen ADDR` | | the service's port on 127.0.0.1; port 0 picks a free one |
//! | `--advertise HOST:PORT` | | the listen address |
//! | `--discovery HOST:PORT[,HOST:PORT…]` | `ROUNDSMAN_SERVER` | `127.0.0.1:5555` |
//! | `--namespace NAME` | `ROUNDSMAN_NAMESPACE` | `default` |
//! | `--ready-file PATH` | | where the address it really listens on is written, as JSON, once it serves |
//! | `--log-format human\|json` | | `human`; `RUST_LOG` filters |
//! | `--probe` | | serves nothing: asks the one that listens for its health |
//!
//! and those of the service's own, see [`Service::flags`]. Exit codes: 0 done, 1 failed, with one line on standard error
//! that says why, 2 wrong usage.

mod args;
mod logs;
mod probe;
mod process;

use std::{
    error::Error as StdError,
    ffi::OsString,
    fmt,
    io::{self, Write},
    marker::PhantomData,
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{args::Standard, process::Process};
use crate::{discovery::Discovery, health::Health, new_instance::NewInstance, registration::Registration};

/// How long a call to discovery may take, saying goodbye included.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long requests and [tasks](Start::tasks) under way are waited for at the end.
pub const GRACE: Duration = Duration::from_secs(10);

/// Why a service could not start, or go on.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// A service about to run. See the [module](self).
#[must_use = "it serves nothing until it is run"]
pub struct Service<F = ()> {
    name: &'static str,
    port: u16,
    about: &'static str,
    version: Option<&'static str>,
    describe: Option<Describe>,
    flags: PhantomData<fn() -> F>,
}

type Describe = Box<dyn FnOnce(NewInstance) -> NewInstance + Send>;

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
    /// For what goes on after a request was answered; waited for at the end, for at most [`GRACE`].
    pub tasks: TaskTracker,
    /// Where it listens.
    pub listening: SocketAddr,
    /// The flags of its own.
    pub flags: F,
}

// === impl Service ===

impl Service {
    /// A service of this name that listens on this port of 127.0.0.1 unless its command line says otherwise.
    pub fn new(name: &'static str, port: u16) -> Self {
        Self { name, port, about: "", version: None, describe: None, flags: PhantomData }
    }
}

impl<F: clap::Args> Service<F> {
    /// What it is, in a line for `--help`.
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Its version: `env!("CARGO_PKG_VERSION")`. For `--version`, and for those who look it up.
    pub fn version(self, version: &'static str) -> Self {
        Self { version: Some(version), ..self }
    }

    /// What else is registered: tags, metadata, zone, weight, another interval; `instance.expect(None)` where the header
    /// with the id does not get through to the visits.
    ///
    /// ```no_run
    /// # use roundsman::service::Service;
    /// let service = Service::new("greeter", 8080).instance(|instance| instance.tag("polite").zone("a"));
    /// ```
    pub fn instance(self, describe: impl FnOnce(NewInstance) -> NewInstance + Send + 'static) -> Self {
        Self { describe: Some(Box::new(describe)), ..self }
    }

    /// Takes flags of its own, too; they arrive in [`Start::flags`].
    ///
    /// ```no_run
    /// # use roundsman::service::{Service, Start};
    /// # use std::{convert::Infallible, process::ExitCode};
    /// #[derive(clap::Args)]
    /// struct Flags {
    ///     /// What to say
    ///     #[arg(long, default_value = "hello")]
    ///     greeting: String,
    /// }
    ///
    /// # async fn example() -> ExitCode {
    /// let service = Service::new("greeter", 8080).flags::<Flags>();
    /// service.run(async |start: Start<Flags>| {
    ///     let greeting = start.flags.greeting;
    ///     Ok::<_, Infallible>(axum::Router::new().route("/", axum::routing::get(async || greeting)))
    /// }).await
    /// # }
    /// ```
    pub fn flags<G: clap::Args>(self) -> Service<G> {
        let Self { name, port, about, version, describe, flags: _ } = self;
        Service { name, port, about, version, describe, flags: PhantomData }
    }

    /// Runs it, as the command line says, until it is told to end by SIGTERM or SIGINT: the whole of `main`.
    ///
    /// It listens first, so that nobody is refused; then `start` makes the router, while a signal still ends everything at
    /// once; then it serves, and registers in the background, whether or not discovery is there. At the end it leaves as
    /// [`Registration::graceful`] does, finishes what is under way within [`GRACE`], and closes the client.
    ///
    /// `/health` is answered from [`Start::health`], with the instance's id, by which visits tell it from a program that took
    /// over its address ([`NewInstance::identified`]); every other path is the router's, within the
    /// [trace](crate::TraceContext) of its request.
    pub async fn run<S, R, E>(self, start: S) -> ExitCode
    where
        S: FnOnce(Start<F>) -> R,
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        self.run_from(std::env::args_os(), start).await
    }

    /// The same with another command line, of which the first word is the program's name.
    pub async fn run_from<A, S, R, E>(self, args: A, start: S) -> ExitCode
    where
        A: IntoIterator<Item: Into<OsString> + Clone>,
        S: FnOnce(Start<F>) -> R,
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        let name = self.name;
        let done = match args::parse::<F>(args::command::<F>(self.name, self.port, self.about, self.version), args) {
            Ok((standard, _)) if standard.probe => probe::probe(standard.listen).await.map_err(Into::into),
            Ok((standard, flags)) => self.serve(&standard, flags, start).await,
            Err(usage) => {
                // Nobody is left to tell when even this fails.
                let _ = usage.print();
                return u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
            }
        };
        let Err(failure) = done else { return ExitCode::SUCCESS };
        let _ = writeln!(io::stderr(), "{name}: {}", chain(&*failure));
        ExitCode::FAILURE
    }

    async fn serve<S, R, E>(self, standard: &Standard, flags: F, start: S) -> Result<(), Failure>
    where
        S: FnOnce(Start<F>) -> R,
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        logs::start(standard.log_format);
        let stop = process::stop_signal()?;
        let listener = TcpListener::bind(standard.listen).await;
        let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", standard.listen))?;
        let listening = listener.local_addr()?;

        // Connected in the background: discovery may start later, and go away and come back.
        let discovery = Discovery::builder()
            .servers(standard.discovery.as_slice())
            .namespace(standard.namespace.as_str())
            .service(self.name)
            .timeout(DISCOVERY_TIMEOUT)
            .connect_lazy()?;
        let begin = CancellationToken::new();
        let instance = self.registered(standard, listening)?.into_registration()?;
        let registration = Registration::keep_from(begin.clone(), &discovery, instance, None);
        let (health, tasks) = (Health::new(), TaskTracker::new());
        health.follow(&registration);
        let process = Process { discovery: discovery.clone(), registration, health, tasks, listening, begin };
        let served = process.run(listener, stop, standard.ready_file.as_deref(), flags, start).await;
        discovery.close().await;
        served
    }

    /// The instance to register.
    fn registered(self, standard: &Standard, listening: SocketAddr) -> Result<NewInstance, Failure> {
        let mut instance = NewInstance::new(self.name, standard.advertised(listening)?)?;
        if let Some(version) = self.version {
            instance = instance.version(version);
        }
        let instance = match self.describe {
            Some(describe) => describe(instance),
            None => instance,
        };
        Ok(instance.identified_by_default())
    }
}

impl<F> fmt::Debug for Service<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
