//! NATS request and reply: its text protocol by hand, and somebody in this process who replies.

mod wire;

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;
use tokio::task::JoinSet;

use self::wire::{Requester, reply};
use super::{CALLERS, CONNECTIONS};
use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    load::Caller,
    process::Process,
    server,
};

/// What is asked, and answered.
const SUBJECT: &str = "lookup";

/// A running nats-server, and those who reply.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
    _repliers: JoinSet<()>,
}

/// Asks again and again.
#[derive(Clone, Debug)]
pub(crate) struct Ask(Requester);

// === impl Nats ===

impl Nats {
    pub(crate) async fn start() -> Result<Self> {
        let (folder, address) = (server::folder()?, super::free_address().await?);
        let mut command = Command::new(super::find("nats-server")?);
        command.current_dir(folder.path()).env_clear();
        command.args(["--addr", "127.0.0.1", "--port", &address.port().to_string()]);
        let mut process = Process::start("nats-server", Core::Any, command, &folder.path().join("log"))?;
        super::listening(address, &mut process, "nats-server").await?;
        let mut repliers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let replier = reply(address, SUBJECT, super::value()).await?;
            // When it breaks, those who ask hear nothing more and say so.
            repliers.spawn(async move { drop(replier.await) });
        }
        Ok(Self { process, address, _folder: folder, _repliers: repliers })
    }

    /// One who asks, on a connection of its own.
    pub(crate) async fn asker(address: SocketAddr) -> Result<Ask> {
        Requester::connect(address, CONNECTIONS).await.map(Ask)
    }

    /// 64 who ask, on 8 connections.
    pub(crate) async fn askers(&self) -> Result<Vec<Ask>> {
        let mut requesters = Vec::new();
        for number in 0..CONNECTIONS {
            requesters.push(Requester::connect(self.address, number).await?);
        }
        Ok(requesters.into_iter().cycle().take(CALLERS).map(Ask).collect())
    }
}

impl Caller for Ask {
    async fn call(&mut self) -> Result<()> {
        let answer = self.0.ask(SUBJECT, b"service-00042").await;
        if answer.context("NATS request")? > 0 { Ok(()) } else { Err(Failure::new("NATS request", "an empty answer")) }
    }
}
