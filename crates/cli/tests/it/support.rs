//! A server in a process of its own, and commands against it.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// Tries, 20 ms apart, before something that must come is given up.
const TRIES: usize = 1_500;

/// `roundsman serve` on free ports, with nothing stored.
pub(crate) struct Served {
    pub(crate) rpc: String,
    pub(crate) http: String,
    child: Child,
    _folder: TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    pub(crate) fn start_on(rpc: &str) -> Self {
        Self::start_with(rpc, "memory:")
    }

    /// On what is stored there.
    pub(crate) fn start_with(rpc: &str, store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let child = roundsman()
            .args(["serve", "--rpc", rpc, "--http", "127.0.0.1:0", "--store", store, "--ready-file"])
            .arg(&ready)
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let addresses =
            eventually("the server serves", || serde_json::from_slice::<Value>(&std::fs::read(&ready).ok()?).ok());
        let address = |name: &str| addresses[name].as_str().unwrap().to_owned();
        Self { rpc: address("rpc.addr"), http: address("http.addr"), child, _folder: folder }
    }

    /// Runs a client command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::from(roundsman().args(args).env("ROUNDSMAN_SERVER", &self.rpc).output().unwrap())
    }

    /// A client command, to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = roundsman();
        command.args(args).env("ROUNDSMAN_SERVER", &self.rpc);
        command
    }

    /// Registers an instance that is handed out without being visited, and returns its id.
    pub(crate) fn register(&self, name: &str, address: &str) -> String {
        self.run(&["register", "--name", name, "--address", address, "--check", "none"]).ok().trim().to_owned()
    }
}

impl Served {
    /// `STOP` freezes it, `CONT` thaws it.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command that goes on until it is dropped, line by line.
pub(crate) struct Watching {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

impl Watching {
    pub(crate) fn start(server: &Served, args: &[&str]) -> Self {
        Self::begin(&mut server.command(args))
    }

    pub(crate) fn begin(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let notes = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, notes }
    }

    /// The next line of the answer.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The next line on stderr.
    pub(crate) fn note(&mut self) -> String {
        self.notes.next().unwrap().unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary, untouched by the environment of whoever runs the tests.
pub(crate) fn roundsman() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roundsman"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROUNDSMAN_")) {
        command.env_remove(name);
    }
    command
}

/// A command that has ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    /// What it printed, when it succeeded and had nothing to complain about.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// What it printed, when it succeeded, whatever it noted besides: one that waits may have begun before there was anybody.
    pub(crate) fn answer(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it said, when it succeeded and had nothing to print.
    pub(crate) fn nothing(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (0, ""), "{}", self.stderr);
        self.stderr
    }

    /// The same, read as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Its one line of complaint.
    pub(crate) fn complaint(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        let line = self.stderr.trim_end();
        assert!(line.starts_with("roundsman: ") && !line.contains('\n'), "{line}");
        line.to_owned()
    }
}

/// Waits until something is there.
#[allow(clippy::disallowed_methods, reason = "a blocking wait for another process, between two looks")]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("never happened: {what}")
}
