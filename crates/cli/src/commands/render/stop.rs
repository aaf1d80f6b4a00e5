//! Being told to stop: SIGTERM and Ctrl-C, once or more often.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::exit::Failure;

/// Listens for the signals.
#[derive(Debug)]
pub(super) struct Signals {
    interrupted: Signal,
    terminated: Signal,
    times: watch::Sender<u32>,
}

/// How often the process was told to stop.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    times: watch::Receiver<u32>,
}

// === impl Signals ===

impl Signals {
    pub(super) fn listen() -> Result<(Self, Stop), Failure> {
        let (told, times) = watch::channel(0);
        let (interrupted, terminated) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok((Self { interrupted, terminated, times: told }, Stop { times }))
    }

    /// Counts for ever.
    pub(super) async fn count(&mut self) {
        loop {
            let told = tokio::select! {
                told = self.interrupted.recv() => told,
                told = self.terminated.recv() => told,
            };
            match told {
                Some(()) => self.times.send_modify(|times| *times = times.saturating_add(1)),
                None => std::future::pending().await,
            }
        }
    }
}

pub(super) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(Failure::Runtime)
}

// === impl Stop ===

impl Stop {
    /// Returns when the process was told so often.
    pub(super) async fn told(&self, times: u32) {
        let mut told = self.times.clone();
        if told.wait_for(|so_far| *so_far >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it was told at all.
    pub(super) fn is_told(&self) -> bool {
        *self.times.borrow() > 0
    }
}
