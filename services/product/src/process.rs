//! What any service process needs and has nothing to do with what it serves: logs, signals, a ready file, a probe.

use std::{
    error::Error,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// What is logged unless `RUST_LOG` says otherwise. tarpc's spans are of level info, and not worth their price.
const LOG_FILTER: &str = "info,tarpc=warn";

/// How long a probe waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Log lines go to standard error, in this format. To be called once.
pub fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let logs = logs.with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Takes over SIGTERM and SIGINT; what it returns ends at the first of them.
///
/// # Errors
/// When the operating system refuses.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells where it really listens, which matters when the port was 0. The file appears in one piece.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ready_file(path: &Path, listening: SocketAddr) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    std::fs::write(&draft, json!({ "http.addr": listening }).to_string())?;
    std::fs::rename(&draft, path)
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Asks the one that listens at `listen` for its health: for container health checks, which have no curl at hand.
///
/// # Errors
/// When it does not answer 200 within a second, and what came instead.
pub async fn probe(listen: SocketAddr) -> io::Result<()> {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        // Listening everywhere includes here.
        address.set_ip(if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
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
