//! `roundsman serve`: from arguments to the end of the process.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use crate::{Config, ServeArgs, ServeError, Server, logging};

/// Serves until SIGTERM or SIGINT. With `--check-config` it prints the configuration and returns.
///
/// # Errors
/// When the configuration is wrong, the server cannot start, or a part of it has ended.
pub async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let config = Config::gather(&args)?;
    if args.check_config {
        print(&config);
        return Ok(());
    }
    logging::start(config.log_format);
    let listen = |kind| signal(kind).map_err(|source| ServeError::System { what: "cannot listen for signals", source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let signalled = async {
        tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
    };
    let mut signalled = std::pin::pin!(signalled);
    let ready_file = config.ready_file.clone();
    let mut server = tokio::select! {
        server = Server::start(config) => server?,
        // Still waiting for the store: nothing to drain.
        _ = signalled.as_mut() => return Ok(()),
    };
    if let Some(path) = &ready_file {
        write_ready_file(path, &server)?;
    }
    let ended = tokio::select! {
        name = signalled => { tracing::info!(signal = name, "stopping"); Ok(()) }
        error = server.broken() => Err(error),
    };
    if ended.is_ok() {
        server.stop().await;
    }
    if let Some(path) = ready_file {
        // It says that the server serves, which is no longer so; if it cannot be removed there is nothing left to do about it.
        drop(std::fs::remove_file(path));
    }
    ended
}

/// Whoever waits for the file must never read half of it.
fn write_ready_file(path: &Path, server: &Server) -> Result<(), ServeError> {
    let content =
        serde_json::json!({ "rpc.addr": server.rpc_addr().to_string(), "http.addr": server.http_addr().to_string() });
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let written = std::fs::write(&draft, format!("{content}\n")).and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|source| ServeError::ReadyFile { path: path.display().to_string(), source })
}

#[allow(clippy::print_stdout, reason = "this is what --check-config is for")]
fn print(config: &Config) {
    println!("{config}");
    println!("# the configuration is valid");
}
