//! A door that others than this machine can reach.

use std::net::SocketAddr;

/// Says aloud that others than this machine can get in.
pub(super) fn warn_if_exposed(door: &'static str, addr: SocketAddr) {
    if addr.ip().to_canonical().is_loopback() {
        return;
    }
    let what = if door == "rpc" { "register, drain and deregister everything" } else { "read everything" };
    tracing::warn!(
        door,
        %addr,
        "EXPOSED: whoever reaches this address can {what}, since there is no authentication yet. \
         Listen only on a trusted network or behind a firewall, or on 127.0.0.1 (--{door})"
    );
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(door: &'static str, addr: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || warn_if_exposed(door, addr.parse().unwrap()));
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_door_that_others_can_reach_is_warned_of_once() {
        for addr in ["0.0.0.0:5555", "[::]:5555", "10.0.0.7:5555", "[::ffff:10.0.0.7]:5555"] {
            let log = logged("rpc", addr);
            assert_eq!(log.lines().count(), 1, "{log}");
            for part in ["WARN", "deregister", "no authentication", "firewall", "--rpc", addr] {
                assert!(log.contains(part), "{part}: {log}");
            }
        }
        let log = logged("http", "0.0.0.0:5556");
        assert!(log.contains("read everything") && log.contains("--http"), "{log}");
    }

    #[test]
    fn a_door_on_loopback_is_not_warned_of() {
        for addr in ["127.0.0.1:5555", "127.8.0.1:1", "[::1]:5555", "[::ffff:127.0.0.1]:5555"] {
            assert_eq!(logged("rpc", addr), "");
        }
    }
}
