//! The one task that owns the connection: makes it, watches over it, and makes another when it is gone.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Dialect, DiscoveryClient, InstanceId, Version, handshake::Hello, time};
use tarpc::context;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{Reconnects, jittered},
    dial::{Dialed, Spoken, dial, race},
    error::{Attempt, Attempts},
    link::{Connection, Link},
    wire::Frames,
};

/// After so long without an answer the server is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(4);
/// How long it has to answer that.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long it has when somebody in a hurry was not answered.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that broke sooner, and on which nothing was ever answered, counts as a failed try.
const SOUND_AFTER: Duration = Duration::from_secs(1);

/// The task's state. It holds nothing of [`Discovery`](crate::Discovery), whose last handle ends it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    servers: Vec<Arc<str>>,
    hello: Hello,
    /// What the servers speak that know of no range.
    spoken: Spoken,
    dial_timeout: Duration,
    link: watch::Sender<Link>,
    stop: CancellationToken,
    reconnects: Reconnects,
    /// Which server comes first in the next round.
    turn: usize,
    generations: u64,
    /// tarpc's end of the connection, while there is one.
    dispatch: JoinSet<Result<(), String>>,
}

// === impl Supervisor ===

impl Supervisor {
    /// A supervisor, and what it publishes.
    pub(crate) fn new(
        servers: Vec<Arc<str>>,
        hello: Hello,
        dial_timeout: Duration,
        stop: CancellationToken,
    ) -> (Self, watch::Receiver<Link>) {
        let tried = servers.iter().map(|server| Attempt {
            server: Arc::clone(server),
            reason: "no answer yet".to_owned(),
            refused: false,
        });
        let (link, links) = watch::channel(Link::Away { tried: tried.collect(), failed_rounds: 0 });
        let reconnects = Reconnects::new(Instant::now());
        let (spoken, dispatch) = (Spoken::default(), JoinSet::new());
        let (turn, generations) = (0, 0);
        (Self { servers, hello, spoken, dial_timeout, link, stop, reconnects, turn, generations, dispatch }, links)
    }

    /// Keeps a connection until it is told to stop.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_connected()).await;
        self.dispatch.shutdown().await;
        self.link.send_replace(Link::Closed);
    }

    async fn keep_connected(&mut self) {
        let mut failed_rounds = 0_u32;
        loop {
            match self.round().await {
                Ok(connection) => {
                    failed_rounds = 0;
                    self.hold(connection).await;
                }
                Err(tried) => {
                    failed_rounds = failed_rounds.saturating_add(1);
                    tracing::debug!(%tried, failed_rounds, "no discovery server reached");
                    self.link.send_replace(Link::Away { tried, failed_rounds });
                }
            }
            sleep(self.reconnects.pause(Instant::now())).await;
        }
    }

    /// Tries each server once, the next beside one that keeps us waiting.
    async fn round(&mut self) -> Result<Arc<Connection>, Attempts> {
        let first = self.turn.checked_rem(self.servers.len()).unwrap_or_default();
        let order = self.servers.iter().cycle().skip(first).take(self.servers.len());
        let candidates: Vec<_> = order.map(|server| (Arc::clone(server), self.spoken.order(server))).collect();
        let (hello, limit) = (&self.hello, self.dial_timeout);
        let met = race(candidates, |(server, versions)| async move {
            dial(&server, hello, &versions, limit).await.map(|dialed| (server, dialed))
        });
        let (nth, (server, dialed)) = met.await.map_err(|tried| tried.into_iter().collect::<Attempts>())?;
        self.turn = first.wrapping_add(nth);
        self.spoken.note(&server, dialed.version);
        Ok(self.start(server, dialed))
    }

    fn start(&mut self, server: Arc<str>, dialed: Dialed) -> Arc<Connection> {
        let mut config = tarpc::client::Config::default();
        // Calls wait for their turn before they come here, see `Line`.
        config.max_in_flight_requests = Connection::MOST_CALLS;
        config.pending_request_buffer = Connection::MOST_CALLS;
        let dialect = Dialect { version: dialed.version, codec: self.hello.codec };
        let transport = tarpc::serde_transport::new(dialed.framed, Frames(dialect));
        let tarpc::client::NewClient { client, dispatch } = DiscoveryClient::new(config, transport);
        self.dispatch.spawn(async move { dispatch.await.map_err(|error| root_cause(&error)) });
        self.generations += 1;
        let (version, name) = (dialed.version, dialed.name);
        tracing::info!(%server, name, protocol = %version, "connected to the discovery server");
        if version < Version::CURRENT {
            let newest = Version::CURRENT;
            tracing::info!(%server, "it speaks version {version} of the protocol, this client up to {newest}: do without what is new");
        }
        Arc::new(Connection::new(self.generations, server, version, client))
    }

    /// Lends the connection out until it breaks.
    async fn hold(&mut self, connection: Arc<Connection>) {
        let since = Instant::now();
        self.link.send_replace(Link::Up(Arc::clone(&connection)));
        let reason = tokio::select! {
            end = self.dispatch.join_next() => match end {
                Some(Ok(Err(error))) => format!("the connection broke: {error}"),
                _ => "the server closed the connection".to_owned(),
            },
            () = connection.abandoned.cancelled() => "the server stopped answering".to_owned(),
            patience = silence(&connection) => format!("no sign of life within {}", time::display(patience)),
        };
        self.dispatch.shutdown().await;
        tracing::warn!(server = %connection.server, reason, "lost the discovery server; connecting again");
        if connection.answers() > 0 || since.elapsed() > SOUND_AFTER {
            self.reconnects.reset(Instant::now());
        }
        self.turn = self.turn.wrapping_add(1);
        let attempt = Attempt { server: Arc::clone(&connection.server), reason, refused: false };
        self.link.send_replace(Link::Away { tried: [attempt].into_iter().collect(), failed_rounds: 0 });
    }
}

/// Returns when the server no longer gives any sign of life, though the connection stands: a frozen process,
/// a machine that lost power, a network that swallows packets. Tells how long it was given for one.
async fn silence(connection: &Connection) -> Duration {
    // A question that costs next to nothing, and is no lookup that would count as one service calling another.
    let Ok(nobody) = InstanceId::try_new("roundsman-heartbeat") else { return std::future::pending().await };
    let mut seen = connection.answers();
    loop {
        let patience = tokio::select! {
            () = sleep(jittered(HEARTBEAT)) => HEARTBEAT_TIMEOUT,
            () = connection.doubted.notified() => DOUBT_TIMEOUT,
        };
        let answers = std::mem::replace(&mut seen, connection.answers());
        if answers != seen && patience == HEARTBEAT_TIMEOUT {
            continue;
        }
        let mut context = context::current();
        context.deadline = (Instant::now() + patience).into_std();
        match timeout(patience, connection.client.renew(context, nobody.clone())).await {
            Ok(Err(tarpc::client::RpcError::DeadlineExceeded)) | Err(_) if connection.answers() == seen => {
                return patience;
            }
            _ => {}
        }
    }
}

/// The innermost error: the outer ones only say that something happened to the channel.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
