//! The peers, each started from its own binary on free loopback ports with files of its own.

pub(crate) mod etcd;
pub(crate) mod floor;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod roundsman;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{
    error::{Context, Failure, Result},
    process::{PATIENCE, Process},
};

/// Connections to each peer, and callers on them.
pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const CALLERS: usize = 64;

/// A value as large as an instance in JSON.
pub(crate) fn value() -> Vec<u8> {
    br#"{"id":"service-00042-x3k5q7m2pa","address":"10.0.0.42:7070","health":"/health","zone":"eu-central-1a","version":"1.14.2","tags":["stable"],"meta":{"commit":"000002a","team":"checkout"}}"#.to_vec()
}

/// Where a program is, if it is installed.
fn find(program: &'static str) -> Result<PathBuf> {
    // Debian has servers in folders that are not in everyone's PATH.
    let folders = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let found = folders.iter().map(|folder| PathBuf::from(folder).join(program)).find(|path| path.exists());
    found.ok_or(Failure::Missing(program))
}

/// What a program says its version is, in short.
pub(crate) fn version(program: &'static str) -> Result<String> {
    let output = Command::new(find(program)?).arg("--version").output().context(format!("running {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbered = |word: &&str| word.trim_start_matches(['v', '=']).starts_with(|c: char| c.is_ascii_digit());
    let number = text.split_ascii_whitespace().map(|word| word.trim_start_matches("v=")).find(numbered);
    Ok(format!("{program} {}", number.unwrap_or("of an unknown version").trim_start_matches('v')))
}

/// An address where nobody listens at the moment.
async fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}

/// Waits until somebody listens.
async fn listening(address: SocketAddr, process: &mut Process, name: &'static str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if process.has_ended() {
            return Err(Failure::new(format!("starting {name}"), "it ended by itself"));
        }
        if Instant::now() > end {
            return Err(Failure::Late { what: format!("the start of {name}"), limit: PATIENCE });
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// `Ok(None)` for a peer that is not installed: its row says so, the rest goes on.
pub(crate) fn if_installed<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(peer) => Ok(Some(peer)),
        Err(Failure::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which of so many services is looked up next: all in turn, callers far apart from each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    next: u32,
    services: u32,
}

// === impl Walk ===

impl Walk {
    pub(crate) fn new(caller: usize, services: u32) -> Self {
        // A step that shares no factor with usual sizes, so that callers do not meet.
        Self { next: u32::try_from(caller).unwrap_or_default().wrapping_mul(7_919) % services, services }
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.next = (self.next + 1) % self.services;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_installed_is_no_failure() {
        assert!(if_installed(find("no-such-program")).unwrap().is_none());
        assert!(if_installed::<()>(Err(Failure::new("starting", "it ended"))).is_err());
        assert!(version("no-such-program").unwrap_err().to_string().contains("not installed"));
    }

    #[test]
    fn callers_walk_all_services() {
        let mut walk = Walk::new(5, 7);
        let walked: std::collections::BTreeSet<u32> = (0..7).map(|_| walk.next()).collect();
        assert_eq!(walked.len(), 7);
    }
}
