//! A thread of its own, with one runtime and, where the machine has two cores, a core of its own.
//!
//! Latency of single calls and CPU time per call are measured this way: work-stealing threads on both sides
//! would wake each other across cores, and that would be most of what is measured.

use std::process::{Child, Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::{sync::oneshot, task::JoinSet};

use crate::error::{Context, Failure, Result};

/// How little of a busy machine humble threads get, as `nice` has it.
const HUMBLE: i32 = 19;

/// How much of it one gets who goes first.
const FIRST: i32 = -10;

/// Where a thread or a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// Wherever the kernel likes.
    Any,
    /// On the first core: the servers.
    First,
    /// On the second: the load.
    Second,
}

// === impl Core ===

impl Core {
    /// Ties the current thread to the core. On a machine with a single core this changes nothing.
    fn tie(self) -> Result<()> {
        let allowed = sched_getaffinity(None).context("asking for the allowed cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let core = match self {
            Self::Any => None,
            Self::First => cores.next(),
            Self::Second => cores.nth(1),
        };
        let Some(core) = core.filter(|_| allowed.count() > 1) else { return Ok(()) };
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).context("tying a thread to a core")
    }
}

/// Has the current thread go before others: who measures stands for a client on a machine of its own, and must not wait
/// for a core that the load has. Without the right to it the figures are worse than they should be, which is the safe side.
pub(crate) fn go_first() {
    let _ = rustix::process::setpriority_process(None, FIRST);
}

/// Starts a program on a core.
pub(crate) fn spawn(core: Core, mut command: Command) -> std::io::Result<Child> {
    if core == Core::Any {
        return command.spawn();
    }
    // A child inherits the core of the thread that starts it.
    let thread = std::thread::spawn(move || {
        core.tie().map_err(std::io::Error::other)?;
        command.spawn()
    });
    thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the starting thread failed")))
}

/// Runs a future to its end in a single-threaded runtime on a core.
pub(crate) async fn run<T, F, R>(core: Core, make: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = Result<T>>,
{
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let result = block_on(core, make);
            // If nobody waits any more, nobody wants to know.
            drop(sender.send(result));
        })
        .context("starting a thread")?;
    receiver.await.map_err(|_| Failure::new("making load", "its thread failed"))?
}

/// Runs a future to its end on threads that get what nobody else wants of the cores: what would come from other machines
/// must not keep the measured processes from their own.
pub(crate) async fn run_humbly<T, F>(make: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("humble".to_owned())
        .spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().on_thread_start(|| {
                // Without it the figures are worse than they should be, which is the safe side.
                let _ = rustix::process::setpriority_process(None, HUMBLE);
            });
            let result =
                runtime.build().context("starting a runtime").and_then(|runtime| runtime.block_on(on_a_worker(make)));
            // If nobody waits any more, nobody wants to know.
            drop(sender.send(result));
        })
        .context("starting a thread")?;
    receiver.await.map_err(|_| Failure::new("making load", "its thread failed"))?
}

/// On a worker of the runtime and not on the thread that blocks for it, whose priority is its starter's.
async fn on_a_worker<T: Send + 'static>(make: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn(make);
    let ended = tasks.join_next().await.ok_or_else(|| Failure::new("making load", "there is no task"))?;
    ended.context("making load")?
}

fn block_on<T, F, R>(core: Core, make: F) -> Result<T>
where
    F: FnOnce() -> R,
    R: Future<Output = Result<T>>,
{
    core.tie()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(make())
}
