//! A service about to run.

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
use roundsman_protocol::Address;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    DISCOVERY_TIMEOUT, Failure, Start,
    line::{self, About, Line, Unread},
    logs, probe,
    process::{self, Process},
    settings::Settings,
};
use crate::{
    builder::Builder, discovery::Discovery, health::Health, new_instance::NewInstance, registration::Registration,
};

/// A service about to run: a program with a name, a port and a router. See the [module](super).
#[must_use = "it serves nothing until it is run"]
pub struct App<F = ()> {
    about: About,
    settings: Settings,
    client: Option<Customize<Builder>>,
    describe: Option<Customize<NewInstance>>,
    flags: PhantomData<fn() -> F>,
}

type Customize<T> = Box<dyn FnOnce(T) -> T + Send>;

// === impl App ===

impl App {
    /// A service of this name that listens on this port of 127.0.0.1 unless told otherwise.
    pub fn new(name: &'static str, port: u16) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let (about, settings) = (About { name, about: "", version: None }, Settings::new(listen));
        Self { about, settings, client: None, describe: None, flags: PhantomData }
    }
}

impl<F: clap::Args> App<F> {
    /// What it is, in a line for `--help`.
    pub fn about(mut self, about: &'static str) -> Self {
        self.about.about = about;
        self
    }

    /// Its version: `env!("CARGO_PKG_VERSION")`. For `--version`, and for those who look it up.
    pub fn version(mut self, version: &'static str) -> Self {
        self.about.version = Some(version);
        self
    }

    /// Where it listens, unless flag or environment say otherwise.
    pub fn listen(mut self, listen: SocketAddr) -> Self {
        self.settings.listen = listen;
        self
    }

    /// The address that others reach it at, unless flag or environment say otherwise.
    pub fn advertise(mut self, address: Address) -> Self {
        self.settings.advertise = Some(address);
        self
    }

    /// A second place at which `/health` is answered, and nothing else: for monitors and container platforms that must not
    /// reach the service itself. Visits of the discovery servers go to the address that is advertised, which answers them, too.
    pub fn health_listen(mut self, listen: SocketAddr) -> Self {
        self.settings.health_listen = Some(listen);
        self
    }

    /// How long requests and [tasks](Start::tasks) under way are waited for at the end. By default [`GRACE`](super::GRACE).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How its client is set up: everything that a [`Builder`] can be told. Flags and environment count more.
    ///
    /// ```no_run
    /// # use roundsman::service::App;
    /// use roundsman::CircuitBreaker;
    ///
    /// let app = App::new("greeter", 8080)
    ///     .client(|client| client.snapshot_file("/var/lib/greeter/peers.json").circuit_breaker(CircuitBreaker::never()));
    /// ```
    pub fn client(mut self, client: impl FnOnce(Builder) -> Builder + Send + 'static) -> Self {
        self.client = Some(Box::new(client));
        self
    }

    /// What else is registered: tags, metadata, zone, weight, another interval; `instance.expect(None)` where the header
    /// with the id does not get through to the visits. Flags and environment count more.
    ///
    /// ```no_run
    /// # use roundsman::service::App;
    /// let app = App::new("greeter", 8080).instance(|instance| instance.tag("polite").zone("a"));
    /// ```
    pub fn instance(mut self, describe: impl FnOnce(NewInstance) -> NewInstance + Send + 'static) -> Self {
        self.describe = Some(Box::new(describe));
        self
    }

    /// Takes flags of its own, too; they arrive in [`Start::flags`].
    ///
    /// ```no_run
    /// # use roundsman::service::{App, Start};
    /// # use std::{convert::Infallible, process::ExitCode};
    /// #[derive(clap::Args)]
    /// struct Flags {
    ///     /// What to say
    ///     #[arg(long, default_value = "hello")]
    ///     greeting: String,
    /// }
    ///
    /// # async fn example() -> ExitCode {
    /// let app = App::new("greeter", 8080).flags::<Flags>();
    /// app.run(async |start: Start<Flags>| {
    ///     let greeting = start.flags.greeting;
    ///     Ok::<_, Infallible>(axum::Router::new().route("/", axum::routing::get(async || greeting)))
    /// }).await
    /// # }
    /// ```
    pub fn flags<G: clap::Args>(self) -> App<G> {
        let Self { about, settings, client, describe, flags: _ } = self;
        App { about, settings, client, describe, flags: PhantomData }
    }

    /// Runs it, as it is told, until it is told to end by SIGTERM or SIGINT: the whole of `main`.
    ///
    /// It listens first, so that nobody is refused; then `start` makes the router, while a signal still ends everything at
    /// once; then it serves, and registers in the background, whether or not discovery is there. At the end it leaves as
    /// [`Registration::graceful`] does, finishes what is under way within its [grace](App::grace), and closes the client.
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
        let name = self.about.name;
        let done = match line::read::<F>(&self.about, &self.settings, args, |name| std::env::var_os(name)) {
            Ok(Line { settings, probe: true, .. }) => probe::probe(settings.probed()).await.map_err(Into::into),
            Ok(Line { settings, own, .. }) => self.serve(settings, own, start).await,
            Err(Unread::Page(page)) => {
                // Nobody is left to tell when even this fails.
                let _ = page.print();
                return ExitCode::SUCCESS;
            }
            Err(Unread::Mistake(mistake)) => {
                let _ = writeln!(io::stderr(), "{name}: {mistake}; see `{name} --help`");
                return ExitCode::from(2);
            }
        };
        let Err(failure) = done else { return ExitCode::SUCCESS };
        let _ = writeln!(io::stderr(), "{name}: {}", chain(&*failure));
        ExitCode::FAILURE
    }

    async fn serve<S, R, E>(self, settings: Settings, flags: F, start: S) -> Result<(), Failure>
    where
        S: FnOnce(Start<F>) -> R,
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        logs::start(settings.log_format);
        let stop = process::stop_signal()?;
        let listener = listen(settings.listen).await?;
        let listening = listener.local_addr()?;
        let health_listener = match settings.health_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let health_listening = health_listener.as_ref().map(TcpListener::local_addr).transpose()?;

        // Connected in the background: discovery may start later, and go away and come back.
        let client = Discovery::builder().service(self.about.name).timeout(DISCOVERY_TIMEOUT);
        let client = settings.client(customized(client, self.client));
        let mut instance = NewInstance::new(self.about.name, settings.advertised(listening)?)?;
        if let Some(version) = self.about.version {
            instance = instance.version(version);
        }
        let instance = settings.instance(customized(instance, self.describe))?.identified_by_default();
        let instance = instance.into_registration()?;

        let (discovery, begin) = (client.connect_lazy()?, CancellationToken::new());
        let registration = Registration::keep_from(begin.clone(), &discovery, instance, None);
        let (health, tasks) = (Health::new(), TaskTracker::new());
        health.follow(&registration);
        let start = start(Start {
            discovery: discovery.clone(),
            registration: registration.clone(),
            health: health.clone(),
            tasks: tasks.clone(),
            listening,
            health_listening,
            flags,
        });
        let process = Process { registration, health, tasks, begin, grace: settings.grace };
        let served = process.run(listener, health_listener, stop, settings.ready_file.as_deref(), start).await;
        discovery.close().await;
        served
    }
}

impl<F> fmt::Debug for App<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("about", &self.about).field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn customized<T>(plain: T, customize: Option<Customize<T>>) -> T {
    match customize {
        Some(customize) => customize(plain),
        None => plain,
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// An error with its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
