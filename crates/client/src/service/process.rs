//! A service from the moment it listens to its end.

use std::{io, net::SocketAddr, path::Path};

use axum::{Router, serve::ListenerExt};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, GRACE, Start};
use crate::{discovery::Discovery, health::Health, registration::Registration};

/// A service that listens already.
pub(super) struct Process {
    pub(super) discovery: Discovery,
    pub(super) registration: Registration,
    pub(super) health: Health,
    pub(super) tasks: TaskTracker,
    pub(super) listening: SocketAddr,
    /// Lets the registration begin.
    pub(super) begin: CancellationToken,
}

// === impl Process ===

impl Process {
    /// Makes the router, serves, registers, and leaves when `stop` says so.
    pub(super) async fn run<F, S, R, E>(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
        ready_file: Option<&Path>,
        flags: F,
        start: S,
    ) -> Result<(), Failure>
    where
        S: FnOnce(Start<F>) -> R,
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        let mut stop = Box::pin(stop);
        let router = tokio::select! {
            router = start(self.starting(flags)) => router.map_err(Into::into)?,
            () = &mut stop => return Ok(()),
        };
        // Serving comes before registering: discovery visits /health as soon as it knows the address.
        let leaving = self.registration.graceful(async move {
            stop.await;
            tracing::info!("leaving");
        });
        let left = CancellationToken::new();
        let leave = left.clone();
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        // Calls that are made for a request pass its trace on.
        #[cfg(feature = "http")]
        let router = router.layer(axum::middleware::from_fn(crate::trace::carry));
        let app = self.health.router().fallback_service(router);
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            leaving.await;
            leave.cancel();
        });
        let mut server = JoinSet::new();
        server.spawn(serving.into_future());

        self.begin.cancel();
        tracing::info!(http.addr = %self.listening, id = %self.registration.id(), "serving");
        if let Some(path) = ready_file {
            write_ready_file(path, self.listening)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        tokio::select! {
            // In this order: a server that was told to end has every right to.
            biased;
            () = left.cancelled() => {}
            _ = server.join_next() => return Err("the HTTP server ended by itself".into()),
        }
        self.finish(server).await;
        Ok(())
    }

    fn starting<F>(&self, flags: F) -> Start<F> {
        Start {
            discovery: self.discovery.clone(),
            registration: self.registration.clone(),
            health: self.health.clone(),
            tasks: self.tasks.clone(),
            listening: self.listening,
            flags,
        }
    }

    /// Nobody is sent here any more; what is under way has its time.
    async fn finish(&self, mut server: JoinSet<io::Result<()>>) {
        let finish = async {
            server.join_next().await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        if timeout(GRACE, finish).await.is_err() {
            tracing::warn!("requests or tasks were still under way after {} s, and were cut off", GRACE.as_secs());
        }
    }
}

/// Takes over SIGTERM and SIGINT; what it returns ends at the first of them.
pub(super) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells where it really listens, which matters when the port was 0. The file appears in one piece.
fn write_ready_file(path: &Path, listening: SocketAddr) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    std::fs::write(&draft, serde_json::json!({ "http.addr": listening }).to_string())?;
    std::fs::rename(&draft, path)
}
