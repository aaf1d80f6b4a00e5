//! Processes that are started, asked after and, whatever happens, stopped.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
    time::{Instant, sleep},
};

use crate::{
    error::{Context, Failure, Result},
    isolated::{self, Core},
    kernel,
};

/// How long a process may take to start or to stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A process that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

/// A child of this very program, with which one talks in lines.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Process,
    answers: BufReader<pipe::Receiver>,
    questions: pipe::Sender,
}

// === impl Process ===

impl Process {
    /// Starts a program whose output goes to `log`.
    pub(crate) fn start(name: &str, core: Core, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).context(format!("creating {}", log.display()))?;
        let errors = output.try_clone().context("sharing a log file")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = isolated::spawn(core, command).context(format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        kernel::cpu_time(self.pid())
    }

    /// Bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        kernel::resident(self.pid())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and no more: the process is dead when this returns, or will be in a moment.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context(format!("killing {}", self.name))
    }

    /// Makes it hang: it does nothing any more, and the kernel goes on accepting for it.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let what = || format!("sending {} a signal", self.name);
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(what(), "it has no pid"))?;
        kill_process(pid, signal).context(what())
    }

    /// Asks it to end and waits until it did.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let end = Instant::now() + PATIENCE;
        while !self.has_ended() {
            if Instant::now() > end {
                return Err(Failure::Late { what: format!("the end of {}", self.name), limit: PATIENCE });
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// === impl Helper ===

impl Helper {
    /// Starts a child of this program and returns it with its first line, which says that it is ready.
    pub(crate) async fn start(core: Core, arguments: &[String]) -> Result<(Self, String)> {
        let program = std::env::current_exe().context("looking for this program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = isolated::spawn(core, command).context("starting a helper")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // From here on the child is stopped, whatever fails.
        let process = Process { child, name: "a helper".to_owned() };
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(Failure::new("starting a helper", "no pipes"));
        };
        let answers = pipe::Receiver::from_owned_fd(stdout.into()).context("reading from a helper")?;
        let questions = pipe::Sender::from_owned_fd(stdin.into()).context("writing to a helper")?;
        let mut helper = Self { process, answers: BufReader::new(answers), questions };
        let first = helper.line().await?;
        Ok((helper, first))
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, question: &str) -> Result<String> {
        self.questions.write_all(format!("{question}\n").as_bytes()).await.context("writing to a helper")?;
        self.line().await
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.answers.read_line(&mut line)).await;
        let late = || Failure::Late { what: "a helper's answer".to_owned(), limit: PATIENCE };
        if read.map_err(|_| late())?.context("reading from a helper")? == 0 {
            return Err(Failure::new("waiting for a helper", "it ended"));
        }
        Ok(line.trim_end().to_owned())
    }
}
