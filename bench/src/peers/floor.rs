//! The floor's process, and callers to it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    load::Caller,
    process::Helper,
};

/// The floor: an echo, and the least that a framed lookup can be.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) helper: Helper,
    pub(crate) lookups: SocketAddr,
    pub(crate) echo: SocketAddr,
}

/// Sends bytes and waits for as many.
#[derive(Debug)]
pub(crate) struct Echo {
    stream: TcpStream,
    bytes: Vec<u8>,
}

// === impl Floor ===

impl Floor {
    /// Answers for so many services with so many bytes each.
    pub(crate) async fn start(core: Core, services: u32, answer: usize) -> Result<Self> {
        let arguments = ["floor", "--services", &services.to_string(), "--answer", &answer.to_string()];
        let (helper, ready) = Helper::start(core, &arguments.map(str::to_owned)).await?;
        let (lookups, echo) = ready.split_once(' ').ok_or_else(|| Failure::new("starting the floor", &*ready))?;
        let lookups = lookups.parse().context("the floor's address")?;
        let echo = echo.parse().context("the floor's address")?;
        Ok(Self { helper, lookups, echo })
    }
}

// === impl Echo ===

impl Echo {
    pub(crate) async fn connect(server: SocketAddr, length: usize) -> Result<Self> {
        let stream = TcpStream::connect(server).await.context("connecting to the echo")?;
        stream.set_nodelay(true).context("setting nodelay")?;
        Ok(Self { stream, bytes: vec![b'x'; length] })
    }
}

impl Caller for Echo {
    async fn call(&mut self) -> Result<()> {
        self.stream.write_all(&self.bytes).await.context("writing to the echo")?;
        self.stream.read_exact(&mut self.bytes).await.context("reading from the echo").map(drop)
    }
}
