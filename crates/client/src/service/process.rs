//! A service from the moment it listens to its end.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use axum::{Router, serve::ListenerExt};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Failure;
use crate::{health::Health, registration::Registration};

/// How long who asks for health may take for the last answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// A service that listens already.
pub(super) struct Process {
    pub(super) registration: Registration,
    pub(super) health: Health,
    pub(super) tasks: TaskTracker,
    /// Lets the registration begin.
    pub(super) begin: CancellationToken,
    /// How long what is under way is waited for at the end.
    pub(super) grace: Duration,
}

// === impl Process ===

impl Process {
    /// Serves what `start` makes, registers, and leaves when `stop` says so.
    pub(super) async fn run<R, E>(
        self,
        listener: TcpListener,
        health_listener: Option<TcpListener>,
        stop: impl Future<Output = ()> + Send + 'static,
        ready_file: Option<&Path>,
        start: R,
    ) -> Result<(), Failure>
    where
        R: Future<Output = Result<Router, E>>,
        E: Into<Failure>,
    {
        let mut stop = Box::pin(stop);
        let router = tokio::select! {
            router = start => router.map_err(Into::into)?,
            () = &mut stop => return Ok(()),
        };
        let listening = listener.local_addr()?;
        let health_listening = health_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        // Serving comes before registering: discovery visits /health as soon as it knows the address.
        let leaving = self.registration.graceful(async move {
            stop.await;
            tracing::info!("leaving");
        });
        let (left, ended) = (CancellationToken::new(), CancellationToken::new());
        let mut server = self.serve(listener, router, leaving, left.clone());
        let mut monitors = self.answer_monitors(health_listener, ended.clone());

        self.begin.cancel();
        tracing::info!(http.addr = %listening, id = %self.registration.id(), "serving");
        if let Some(path) = ready_file {
            write_ready_file(path, listening, health_listening)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        tokio::select! {
            // In this order: a server that was told to end has every right to.
            biased;
            () = left.cancelled() => {}
            _ = server.join_next() => return Err("the HTTP server ended by itself".into()),
            Some(_) = monitors.join_next() => return Err("the HTTP server for /health ended by itself".into()),
        }
        self.finish(server).await;
        // Until the very end somebody may ask how it is.
        ended.cancel();
        drop(timeout(LAST_ANSWER, monitors.join_next()).await);
        Ok(())
    }

    /// Begins to serve; ends when `leaving` does, which `left` tells.
    fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        leaving: impl Future<Output = ()> + Send + 'static,
        left: CancellationToken,
    ) -> JoinSet<io::Result<()>> {
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        // Calls that are made for a request pass its trace on.
        #[cfg(feature = "http")]
        let router = router.layer(axum::middleware::from_fn(crate::trace::carry));
        let app = self.health.router().fallback_service(router);
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            leaving.await;
            left.cancel();
        });
        let mut server = JoinSet::new();
        server.spawn(serving.into_future());
        server
    }

    /// Begins to answer at the second address, if there is one, until it has ended.
    fn answer_monitors(&self, listener: Option<TcpListener>, ended: CancellationToken) -> JoinSet<io::Result<()>> {
        let mut monitors = JoinSet::new();
        if let Some(listener) = listener {
            let answering = axum::serve(listener, self.health.router::<()>());
            monitors.spawn(answering.with_graceful_shutdown(ended.cancelled_owned()).into_future());
        }
        monitors
    }

    /// Nobody is sent here any more; what is under way has its time.
    async fn finish(&self, mut server: JoinSet<io::Result<()>>) {
        let finish = async {
            server.join_next().await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        if timeout(self.grace, finish).await.is_err() {
            let grace = roundsman_protocol::time::display(self.grace);
            tracing::warn!("requests or tasks were still under way after {grace}, and were cut off");
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
fn write_ready_file(path: &Path, listening: SocketAddr, health: Option<SocketAddr>) -> io::Result<()> {
    let addresses = match health {
        Some(health) => serde_json::json!({ "http.addr": listening, "health.addr": health }),
        None => serde_json::json!({ "http.addr": listening }),
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, addresses.to_string())?;
    std::fs::rename(&draft, path)
}
