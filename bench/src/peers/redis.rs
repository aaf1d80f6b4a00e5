//! redis: a hash for each service, with an instance in each field.

use std::{collections::HashMap, net::SocketAddr, process::Command};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::{CALLERS, CONNECTIONS, Walk};
use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    load::Caller,
    population,
    process::Process,
    server,
};

/// Instances of a service.
const INSTANCES: usize = 3;

/// A running redis-server, without persistence.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

/// Reads one hash after the other.
#[derive(Debug)]
pub(crate) struct Hgetall {
    connection: MultiplexedConnection,
    walk: Walk,
}

// === impl Redis ===

impl Redis {
    pub(crate) async fn start_with(services: u32) -> Result<Self> {
        let (folder, address) = (server::folder()?, super::free_address().await?);
        let mut command = Command::new(super::find("redis-server")?);
        command.current_dir(folder.path()).env_clear();
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        let mut process = Process::start("redis-server", Core::Any, command, &folder.path().join("log"))?;
        super::listening(address, &mut process, "redis-server").await?;
        let redis = Self { process, address, _folder: folder };
        let mut connection = connection(address).await?;
        for number in 0..services {
            let fields: Vec<(String, Vec<u8>)> =
                (0..INSTANCES).map(|instance| (format!("instance-{instance}"), super::value())).collect();
            connection.hset_multiple::<_, _, _, ()>(key(number)?, &fields).await.context("filling redis")?;
        }
        Ok(redis)
    }

    /// One who reads, on a connection of its own.
    pub(crate) async fn reader(address: SocketAddr, services: u32) -> Result<Hgetall> {
        Ok(Hgetall { connection: connection(address).await?, walk: Walk::new(0, services) })
    }

    /// 64 who read, on 8 connections.
    pub(crate) async fn readers(&self, services: u32) -> Result<Vec<Hgetall>> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(connection(self.address).await?);
        }
        let reader = |(caller, connection): (usize, &MultiplexedConnection)| Hgetall {
            connection: connection.clone(),
            walk: Walk::new(caller, services),
        };
        Ok(connections.iter().cycle().take(CALLERS).enumerate().map(reader).collect())
    }
}

async fn connection(address: SocketAddr) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{address}")).context("redis's address")?;
    client.get_multiplexed_async_connection().await.context("connecting to redis")
}

fn key(number: u32) -> Result<String> {
    Ok(format!("services:{}", population::service(number)?))
}

impl Caller for Hgetall {
    async fn call(&mut self) -> Result<()> {
        let key = key(self.walk.next())?;
        let found: HashMap<String, Vec<u8>> = self.connection.hgetall(key).await.context("redis HGETALL")?;
        if found.len() == INSTANCES { Ok(()) } else { Err(Failure::new("redis HGETALL", "instances are missing")) }
    }
}
