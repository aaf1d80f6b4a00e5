//! A visit of one's own, for container health checks, which have no curl at hand.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a probe waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the one that listens at `listen` for its health.
///
/// # Errors
/// When it does not answer 200 within a second, and what came instead.
pub(super) async fn probe(listen: SocketAddr) -> io::Result<()> {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        // Listening everywhere includes here.
        address.set_ip(if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let visit = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PROBE_TIMEOUT, visit).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if &answer == b"HTTP/1.1 200" {
        return Ok(());
    }
    Err(io::Error::other(format!("answered {}", String::from_utf8_lossy(&answer))))
}
