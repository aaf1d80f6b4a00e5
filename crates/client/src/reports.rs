//! Tells the servers which instances could not be used, so that they are visited now and not at their next turn.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use roundsman_protocol::{InstanceId, Trouble};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{call::call, link::Link};

/// Reports that wait for their turn. More are dropped: the servers visit everybody anyway, if later.
const MAX_WAITING: usize = 64;
/// How long a report may take, waiting for a connection included. An older one is no news.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two reports: at most 50 a second, however many instances fail.
const BETWEEN: Duration = Duration::from_millis(20);

/// The way to the task that reports. It starts with the first report.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    waiting: mpsc::Sender<(InstanceId, Trouble)>,
    /// Until it is started.
    task: Arc<Mutex<Option<Task>>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Task {
    waiting: mpsc::Receiver<(InstanceId, Trouble)>,
    link: watch::Receiver<Link>,
    stop: CancellationToken,
}

// === impl Reports ===

impl Reports {
    /// The pause between two reports of one instance.
    pub(crate) const PAUSE: Duration = Duration::from_secs(1);

    /// `link`, `stop` and `tasks` are those of the client.
    pub(crate) fn new(link: watch::Receiver<Link>, stop: CancellationToken, tasks: TaskTracker) -> Self {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        Self { waiting: sender, task: Arc::new(Mutex::new(Some(Task { waiting, link, stop }))), tasks }
    }

    /// Never waits. Must be called within a Tokio runtime; outside of one the report is dropped.
    pub(crate) fn send(&self, id: &InstanceId, trouble: Trouble) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| Handle::try_current().is_ok());
        if let Some(task) = task {
            self.tasks.spawn(task.run());
        }
        if self.waiting.try_send((id.clone(), trouble)).is_err() {
            tracing::debug!(%id, "not reported: too many reports are waiting, or the client is closed");
        }
    }
}

// === impl Task ===

impl Task {
    async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.report_all()).await;
    }

    async fn report_all(&mut self) {
        while let Some((id, trouble)) = self.waiting.recv().await {
            let sent = call(&self.link, TIMEOUT, |connection, context| {
                let (id, trouble) = (id.clone(), trouble.clone());
                async move { connection.client.report(context, id, trouble).await }
            });
            match sent.await {
                Ok(()) => tracing::debug!(%id, %trouble, "reported"),
                Err(error) => tracing::debug!(%id, %trouble, %error, "could not be reported"),
            }
            sleep(BETWEEN).await;
        }
    }
}
