//! Starting and stopping: in which order the parts come up and go down.

pub(crate) mod assemble;
mod exposed;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use roundsman_registry::Record;
use roundsman_store::Replicator;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    assemble::{Assembled, assemble, task},
    exposed::warn_if_exposed,
};
use crate::{
    config::Config,
    context::{Bound, Context},
    doors::{
        http,
        rpc::{self, RpcDoor},
    },
    error::ServeError,
    follower,
    loading::{self, Loaded},
    offload::Offload,
};

/// How often what nobody needs any more is given back.
const UPKEEP: Duration = Duration::from_secs(1);

/// A running server.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    bound: Bound,
    /// The parts that run for as long as the server does. One that ends early is a bug.
    parts: JoinSet<&'static str>,
    stops: Stops,
}

/// One token for each step of stopping.
#[derive(Debug, Default)]
struct Stops {
    rpc: CancellationToken,
    upkeep: CancellationToken,
    followers: CancellationToken,
    writer: CancellationToken,
    http: CancellationToken,
}

impl Server {
    /// Opens the HTTP door, loads the store (for as long as it takes), begins the rounds, opens the RPC door.
    /// Returns once the server serves.
    ///
    /// # Errors
    /// When a door cannot be opened or the store can never be used.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let http_listener = bind("http", config.http).await?;
        let rpc_listener = bind("rpc", config.rpc).await?;
        let bound = Bound { rpc: local(&rpc_listener)?, http: local(&http_listener)? };
        let name = server_name();
        let store = config.store.open(config.probation, &name);
        let offload = Offload::start();
        let offload = offload.map_err(|source| ServeError::System { what: "cannot start a thread", source })?;
        let Assembled { context, rpc: rpc_door, http: http_meters, writer: writer_meters, inputs, foreign } =
            assemble(config, name, &store, offload);
        context.bound.get_or_init(|| bound);
        let (mut parts, stops) = (JoinSet::new(), Stops::default());
        let door = http::serve(http_listener, Arc::clone(&context), http_meters, stops.http.clone());
        parts.spawn(async move {
            door.await;
            "HTTP door"
        });

        let (state, strict) = (&context.store_state, context.config.strict);
        let Loaded { records, ghosts, removed, position } =
            loading::load(store.as_ref(), &context.registry, state, strict).await?;
        look_after(&context, &records);
        drop(records);
        let following = stops.followers.clone().run_until_cancelled_owned(follower::follow(
            Arc::clone(&store) as Arc<dyn Replicator>,
            position,
            foreign,
        ));
        parts.spawn(async move {
            following.await;
            "follower"
        });
        let writing = task(&context, store, writer_meters, removed, ghosts).run(inputs, stops.writer.clone());
        parts.spawn(async move {
            writing.await;
            "writer"
        });
        let door = rpc::serve(rpc_listener, Arc::clone(&rpc_door), stops.rpc.clone());
        parts.spawn(async move {
            door.await;
            "RPC door"
        });
        let upkeep = stops.upkeep.clone().run_until_cancelled_owned(upkeep(rpc_door, Arc::clone(&context)));
        parts.spawn(async move {
            upkeep.await;
            "upkeep"
        });
        context.set_ready(true);
        tracing::info!(rpc.addr = %bound.rpc, http.addr = %bound.http, store = %context.config.store, server = context.server, "serving");
        Ok(Self { context, bound, parts, stops })
    }

    /// Where the RPC door listens.
    #[must_use]
    pub fn rpc_addr(&self) -> SocketAddr {
        self.bound.rpc
    }

    /// Where the HTTP door listens.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.bound.http
    }

    /// Waits for a part to end that never should.
    pub(crate) async fn broken(&mut self) -> ServeError {
        let ended = self.parts.join_next().await;
        ServeError::PartEnded(ended.and_then(Result::ok).unwrap_or("task that panicked"))
    }

    /// Stops: no new calls, those in flight are answered, what was observed is written.
    pub async fn stop(mut self) {
        self.context.set_ready(false);
        self.stops.rpc.cancel();
        self.ended("RPC door").await;
        self.context.rounds.clone().stop().await;
        self.stops.upkeep.cancel();
        self.ended("upkeep").await;
        self.stops.followers.cancel();
        self.ended("follower").await;
        self.stops.writer.cancel();
        self.ended("writer").await;
        self.stops.http.cancel();
        self.ended("HTTP door").await;
        tracing::info!("stopped");
    }

    async fn ended(&mut self, part: &'static str) {
        while let Some(ended) = self.parts.join_next().await {
            match ended {
                Ok(ended) if ended == part => return,
                Ok(other) => tracing::error!(part = other, "ended out of turn"),
                Err(error) => tracing::error!(%error, "a part of the server failed"),
            }
        }
    }
}

/// Sends the rounds to look after what the store held.
fn look_after(context: &Context, records: &[Arc<Record>]) {
    if !records.is_empty() {
        tracing::info!(instances = records.len(), "loaded");
    }
    context.rounds.track_stored(records);
}

/// Gives back what nobody needs any more.
async fn upkeep(door: Arc<RpcDoor>, context: Arc<Context>) {
    let tidy = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            door.tidy();
        }
    };
    tokio::join!(tidy, context.groups.keep_up(&context.offload));
}

async fn bind(door: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { door, addr, source })?;
    warn_if_exposed(door, local(&listener)?);
    Ok(listener)
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::System { what: "cannot ask for the bound address", source })
}

/// A name that tells this run of this server from every other.
fn server_name() -> String {
    format!("roundsman-{:08x}", fastrand::u32(..))
}
