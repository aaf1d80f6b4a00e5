//! The server's configuration: one validated struct, from flags, environment and file.

pub mod args;
mod file;
mod merge;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use roundsman_health::TargetPolicy;
use roundsman_protocol::limits;
use roundsman_store::StoreUrl;

pub use merge::Mistakes;
pub use values::LogFormat;

/// Everything that an operator can set. The defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the RPC door listens. Port 0: any free one.
    pub rpc: SocketAddr,
    /// Where the HTTP door listens. Port 0: any free one.
    pub http: SocketAddr,
    /// Where registrations last.
    pub store: StoreUrl,
    /// Whether records that cannot be read refuse the start, instead of being set aside.
    pub strict: bool,
    /// Time between two visits of an instance that names no other.
    pub interval: Duration,
    /// Time that a visit may take, unless the instance names another.
    pub timeout: Duration,
    /// Failed visits in a row that evict.
    pub failures: u32,
    /// How long an evicted instance may come back without registering.
    pub probation: Duration,
    /// How long an instance may take until its first visit passes.
    pub start_deadline: Duration,
    /// How long evictions for silence are held back at most.
    pub brake_limit: Duration,
    /// How long a stopping server waits for calls in flight.
    pub drain_deadline: Duration,
    /// Networks that the rounds may visit; empty: all but link-local, multicast and unspecified addresses.
    pub allow_targets: Vec<IpNet>,
    /// RPC connections at a time.
    pub max_connections: usize,
    /// HTTP connections at a time.
    pub max_http_connections: usize,
    /// Bytes of an RPC frame.
    pub max_frame: usize,
    /// Calls in flight on one RPC connection.
    pub max_in_flight: usize,
    /// Watches that wait at a time.
    pub max_watches: usize,
    /// Instances, those on probation included.
    pub max_instances: usize,
    /// Instances in one namespace, those on probation included.
    pub max_instances_per_namespace: usize,
    /// Instances that one RPC connection has registered and that are still there.
    pub max_instances_per_connection: usize,
    /// Namespaces that have an instance.
    pub max_namespaces: usize,
    /// Bytes that what is registered and what callers make the server keep may take; `None`: half of what there is.
    pub max_memory: Option<u64>,
    /// Edges of the graph of who calls whom.
    pub max_edges: usize,
    /// Changes that wait for the writer.
    pub max_queue: usize,
    /// Visits at a time.
    pub max_visits: usize,
    /// Connections kept open to instances between visits. Cut to what the file descriptor limit leaves.
    pub max_kept: usize,
    /// Where the bound addresses are written once the server serves.
    pub ready_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Config {
    /// Which addresses the rounds may visit.
    pub(crate) fn targets(&self) -> TargetPolicy {
        if self.allow_targets.is_empty() {
            TargetPolicy::default()
        } else {
            TargetPolicy::only(self.allow_targets.clone())
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rpc: SocketAddr::from(([127, 0, 0, 1], 5555)),
            http: SocketAddr::from(([127, 0, 0, 1], 5556)),
            store: StoreUrl::sqlite("roundsman.db"),
            strict: false,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failures: 2,
            probation: Duration::from_secs(60),
            start_deadline: Duration::from_secs(30),
            brake_limit: Duration::from_secs(120),
            drain_deadline: Duration::from_secs(10),
            allow_targets: Vec::new(),
            max_connections: 16_384,
            max_http_connections: 512,
            max_frame: limits::MAX_FRAME_BYTES,
            max_in_flight: 1_024,
            max_watches: 20_000,
            max_instances: 200_000,
            max_instances_per_namespace: 150_000,
            max_instances_per_connection: 20_000,
            max_namespaces: 1_000,
            max_memory: None,
            max_edges: 20_000,
            max_queue: 8_192,
            max_visits: 10_000,
            max_kept: 100_000,
            ready_file: None,
            log_format: LogFormat::Human,
        }
    }
}

impl std::fmt::Display for Config {
    /// As a configuration file, with every setting in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |duration| roundsman_protocol::time::display(duration);
        let texts = [
            ("rpc", self.rpc.to_string()),
            ("http", self.http.to_string()),
            ("store", self.store.to_string()),
            ("interval", time(self.interval)),
            ("timeout", time(self.timeout)),
            ("probation", time(self.probation)),
            ("start-deadline", time(self.start_deadline)),
            ("brake-limit", time(self.brake_limit)),
            ("drain-deadline", time(self.drain_deadline)),
            ("log-format", if self.log_format == LogFormat::Json { "json" } else { "human" }.to_owned()),
        ];
        let ready_file = self.ready_file.as_ref().map(|path| ("ready-file", path.display().to_string()));
        for (name, text) in texts.into_iter().chain(ready_file) {
            writeln!(f, "{name} = {text:?}")?;
        }
        let networks: Vec<String> = self.allow_targets.iter().map(ToString::to_string).collect();
        writeln!(f, "allow-targets = {networks:?}")?;
        writeln!(f, "strict = {}", self.strict)?;
        writeln!(f, "failures = {}", self.failures)?;
        let numbers = [
            ("max-connections", self.max_connections),
            ("max-http-connections", self.max_http_connections),
            ("max-frame", self.max_frame),
            ("max-in-flight", self.max_in_flight),
            ("max-watches", self.max_watches),
            ("max-instances", self.max_instances),
            ("max-instances-per-namespace", self.max_instances_per_namespace),
            ("max-instances-per-connection", self.max_instances_per_connection),
            ("max-namespaces", self.max_namespaces),
            ("max-edges", self.max_edges),
            ("max-queue", self.max_queue),
            ("max-visits", self.max_visits),
            ("max-kept", self.max_kept),
        ];
        for (name, number) in numbers {
            writeln!(f, "{name} = {number}")?;
        }
        if let Some(bytes) = self.max_memory {
            writeln!(f, "max-memory = {bytes}")?;
        }
        Ok(())
    }
}
