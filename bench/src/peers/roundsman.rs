//! Callers to the server under test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use roundsman::Discovery;
use roundsman_protocol::ServiceName;

use super::{CALLERS, CONNECTIONS, Walk};
use crate::{
    error::{Context, Failure, Result},
    load::Caller,
    population,
    rpc::{self, Connection},
};

/// Services that new instances belong to: a dozen in each at the end of a run.
const SERVICES: u32 = 10_000;
/// How long a call may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks up through the protocol's generated client.
#[derive(Debug)]
pub(crate) struct Get {
    connection: Arc<Connection>,
    names: Names,
}

/// Looks up through the client library.
#[derive(Debug)]
pub(crate) struct LibraryGet {
    discovery: Discovery,
    names: Names,
}

/// Registers one new instance after the other.
#[derive(Debug)]
pub(crate) struct Register {
    connection: Arc<Connection>,
    caller: u32,
    registered: u32,
}

/// The services in turn, their names made once.
#[derive(Clone, Debug)]
struct Names {
    all: Arc<[ServiceName]>,
    walk: Walk,
}

/// So many callers, each `callers / connections` of them sharing a connection.
pub(crate) async fn getters(server: SocketAddr, services: u32, connections: usize, callers: usize) -> Result<Vec<Get>> {
    let connections: Vec<Arc<Connection>> =
        Connection::open_many(server, connections).await?.into_iter().map(Arc::new).collect();
    let all = names(services)?;
    let getter = |(caller, connection): (usize, &Arc<Connection>)| Get {
        connection: Arc::clone(connection),
        names: Names { all: Arc::clone(&all), walk: Walk::new(caller, services) },
    };
    Ok(connections.iter().cycle().take(callers).enumerate().map(getter).collect())
}

/// 64 callers on 8 connections of the client library.
pub(crate) async fn library_getters(server: SocketAddr, services: u32) -> Result<Vec<LibraryGet>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Discovery::connect(server.to_string()).await.context("connecting to the server")?);
    }
    let all = names(services)?;
    let getter = |(caller, discovery): (usize, &Discovery)| LibraryGet {
        discovery: discovery.clone(),
        names: Names { all: Arc::clone(&all), walk: Walk::new(caller, services) },
    };
    Ok(connections.iter().cycle().take(CALLERS).enumerate().map(getter).collect())
}

/// 64 who register, on 8 connections.
pub(crate) async fn registrars(server: SocketAddr) -> Result<Vec<Register>> {
    let connections: Vec<Arc<Connection>> =
        Connection::open_many(server, CONNECTIONS).await?.into_iter().map(Arc::new).collect();
    let registrar = |(caller, connection): (u32, &Arc<Connection>)| Register {
        connection: Arc::clone(connection),
        caller,
        registered: 0,
    };
    Ok((0..).zip(connections.iter().cycle().take(CALLERS)).map(registrar).collect())
}

fn names(services: u32) -> Result<Arc<[ServiceName]>> {
    (0..services).map(population::service).collect()
}

// === impl Names ===

impl Names {
    fn next(&mut self) -> Result<ServiceName> {
        let at = usize::try_from(self.walk.next()).unwrap_or_default();
        self.all.get(at).cloned().ok_or_else(|| Failure::new("get", "no service to look up"))
    }
}

// === impl Caller ===

impl Caller for Get {
    async fn call(&mut self) -> Result<()> {
        let answer = self.connection.client.get(rpc::within(PATIENCE), self.names.next()?).await;
        rpc::answer("get", answer).map(drop)
    }
}

impl Caller for LibraryGet {
    async fn call(&mut self) -> Result<()> {
        self.discovery.get(self.names.next()?).await.context("get").map(drop)
    }
}

impl Caller for Register {
    async fn call(&mut self) -> Result<()> {
        // Numbers, and with them addresses, that no other caller uses.
        let number = self.registered * 64 + self.caller;
        self.registered += 1;
        let registration = population::instance(number, SERVICES)?;
        let answer = self.connection.client.register(rpc::within(PATIENCE), registration).await;
        rpc::answer("register", answer).map(drop)
    }
}
