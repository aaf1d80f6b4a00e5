//! A redis-server of the test's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use redis::{AsyncTypedCommands, aio::MultiplexedConnection};
use roundsman_store::{Store, StoreUrl};
use tempfile::TempDir;

use crate::records::{eventually, open};

/// A redis-server on a port of its own; killed when dropped.
pub(crate) struct RedisServer {
    dir: TempDir,
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// One that keeps nothing on the disk.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One that keeps everything, also when it is killed.
    pub(crate) async fn durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    pub(crate) async fn start_with(args: &[&str]) -> Self {
        let mut server = Self {
            dir: tempfile::tempdir().unwrap(),
            port: 0,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            child: None,
        };
        // Somebody else may take the port between our look and redis-server's start.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.try_start().await {
                return server;
            }
        }
        panic!("redis-server did not start on ten different ports");
    }

    /// Starts it again on the same port, with whatever it kept.
    pub(crate) async fn restart(&mut self) {
        assert!(self.try_start().await, "redis-server did not start again");
    }

    async fn try_start(&mut self) -> bool {
        let spawned = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes", "--port", &self.port.to_string(), "--dir"])
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = spawned.expect("redis-server could not be started: install it (./scripts/test.sh does)");
        let (port, dir) = (self.port, self.dir.path().to_owned());
        let started = eventually("redis-server answers", async || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let mut ask = redis::cmd("CONFIG");
            match ask.arg("GET").arg("dir").query_async::<Vec<String>>(&mut connection).await {
                // Not one that somebody else started on this port.
                Ok(found) => Some(found.last().is_some_and(|found| std::path::Path::new(found) == dir)),
                Err(error) if error.code() == Some("NOAUTH") => Some(true),
                Err(_) => None,
            }
        })
        .await;
        self.child = Some(child);
        started
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn url(&self) -> StoreUrl {
        format!("redis://127.0.0.1:{}/0", self.port).parse().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        open(&self.url())
    }

    /// What redis-cli would see.
    pub(crate) async fn cli(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/0", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub(crate) async fn configure(&self, name: &str, value: &str) {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value).exec_async(&mut self.cli().await).await.unwrap();
    }

    pub(crate) async fn flush(&self) {
        self.cli().await.flushall().await.unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
