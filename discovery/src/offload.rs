//! Work that takes longer than a moment, away from the threads that serve everybody.
//!
//! An answer of thousands of instances takes milliseconds to put together. On a thread of the runtime, all connections
//! of that thread would wait for it; here only whoever asked does. These threads have a lower priority, so that
//! lookups go on at their pace when all cores are busy.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use roundsman_protocol::DiscoveryError;
use tokio::sync::{mpsc, oneshot};

/// How much may wait. Each connection has few jobs at a time.
const QUEUE: usize = 4_096;
/// How much less of a busy machine these threads get, as `nice` has it.
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Threads for what takes longer than a moment. They end when this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Offload {
    jobs: mpsc::Sender<Job>,
}

impl Offload {
    /// Starts the threads: one for every two cores.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..cores.div_ceil(2) {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("answers".to_owned()).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Does `work` and waits for its end. It is done even when nobody waits any more.
    ///
    /// # Errors
    /// When too much waits already, or the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiscoveryError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may have hung up: then nobody needs it.
            if !reply.is_closed() {
                drop(reply.send(work()));
            }
        });
        let value = u64::try_from(QUEUE).unwrap_or(u64::MAX);
        let busy = || DiscoveryError::LimitReached { limit: "large answers at a time".to_owned(), value };
        self.jobs.try_send(job).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
    loop {
        // One thread waits, the others wait for it: whoever has a job works without the lock.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("an answer could not be put together: this is a bug");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_an_error_and_the_rest_goes_on() {
        let offload = Offload::start().unwrap();
        assert!(offload.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(offload.run(|| 7).await, Ok(7));
    }
}
