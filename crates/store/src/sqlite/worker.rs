//! The thread that SQLite has to itself.
//!
//! SQLite blocks. On the runtime's pool for blocking calls it would wait behind whatever else blocks there, such as
//! the system's resolver; here nothing stands before it but its own work.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError, mpsc::Receiver},
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::State;
use crate::StoreError;

/// Most calls that wait for the thread. The one writer has one under way, and at most one looks at the history.
const QUEUE: usize = 16;
/// How long a store that is dropped waits for its file to be closed. On a disk that hangs the thread is left alone.
const CLOSING: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut State) + Send>;

/// A thread, started with the first call; ends, and closes the file, when this is dropped.
#[derive(Default)]
pub(super) struct Worker(Mutex<Option<Running>>);

struct Running {
    jobs: mpsc::Sender<Job>,
    /// Disconnected once the thread has closed the file.
    ended: Receiver<()>,
}

// === impl Worker ===

impl Worker {
    /// Runs `work` on the thread, after what was asked for earlier. Dropping the future does not stop it: a commit
    /// happens or not, never half. When `work` panics, that is an error, and the file is opened anew.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may be gone; the work is done all the same.
        let job: Job = Box::new(move |state| drop(answer.send(work(state))));
        let jobs = self.jobs()?;
        jobs.send(job).await.map_err(|_| stopped("its thread ended"))?;
        answered.await.unwrap_or_else(|_| Err(stopped("its last call panicked; the log says where")))
    }

    fn jobs(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref().filter(|running| !running.jobs.is_closed()) {
            return Ok(running.jobs.clone());
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (ending, ended) = std::sync::mpsc::channel();
        let body = move || {
            serve(queue);
            drop::<std::sync::mpsc::Sender<()>>(ending);
        };
        let thread = thread::Builder::new().name("roundsman-sqlite".to_owned());
        thread.spawn(body).map_err(|error| StoreError::unavailable("no thread for the store", error))?;
        *running = Some(Running { jobs: jobs.clone(), ended });
        Ok(jobs)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let running = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { jobs, ended }) = running {
            drop(jobs);
            // Either it has ended, or nothing can be done about it.
            let _ = ended.recv_timeout(CLOSING);
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

fn serve(mut queue: mpsc::Receiver<Job>) {
    let mut state = State::default();
    while let Some(job) = queue.blocking_recv() {
        if catch_unwind(AssertUnwindSafe(|| job(&mut state))).is_err() {
            // What was open may be in the middle of anything; which file is relied on still holds.
            state.db = None;
        }
    }
}

fn stopped(why: &str) -> StoreError {
    StoreError::Unavailable { reason: format!("the store failed: {why}"), source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let worker = Worker::default();
        let error = worker.run::<()>(|_| panic!("provoked by a test")).await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(worker.run(|_| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn calls_run_in_order_on_one_thread_that_ends_with_the_worker() {
        let worker = Worker::default();
        let name = worker.run(|_| Ok(thread::current().name().map(str::to_owned))).await.unwrap();
        assert_eq!(name.as_deref(), Some("roundsman-sqlite"));
        let (told, end) = std::sync::mpsc::channel();
        // A call whose caller has given up is carried out before the thread ends.
        let abandoned = worker.run(move |_| {
            told.send(()).unwrap();
            Ok(())
        });
        drop(futures::FutureExt::now_or_never(abandoned));
        drop(worker);
        assert!(end.recv().is_ok());
        assert!(end.recv().is_err(), "the thread has ended");
    }

    #[tokio::test]
    async fn a_blocked_pool_does_not_hold_it_up() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let blocked = std::sync::Arc::new(Mutex::new(blocked));
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let waiting = runtime.spawn_blocking(move || blocked.lock().unwrap().recv().unwrap_err());
        let worker = Worker::default();
        let done = thread::spawn(move || {
            let answer = runtime.block_on(worker.run(|_| Ok(7))).unwrap();
            drop(release);
            answer
        });
        assert_eq!(done.join().unwrap(), 7);
        waiting.await.unwrap();
    }
}
