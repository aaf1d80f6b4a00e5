//! What can be done to the HTTP door.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::error::{Context, Result};

/// A request that never comes to its end.
pub(super) async fn slowloris(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: x\r\nx-a: ").await.context("writing")?;
    for _ in 0..60 {
        stream.write_all(b"b").await.context("writing")?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// A thousand requests at once, and nobody who reads the answers.
pub(super) async fn unread_answers(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    let request = b"GET /api/v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..1_000 {
        // Once the server stops to read, it is full.
        let written = timeout(Duration::from_secs(1), stream.write_all(request)).await;
        let Ok(written) = written else { break };
        written.context("writing")?;
    }
    sleep(Duration::from_secs(15)).await;
    Ok(())
}
