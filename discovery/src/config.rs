//! The server's configuration: one validated struct, from flags, environment and file.
//!
//! Each setting stands in one table, below. What clap, the file, `--check-config` and the README's table know of it is
//! made from there; a test compares the README.

pub mod args;
mod file;
mod merge;
mod setting;
mod values;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::LazyLock, time::Duration};

use ipnet::IpNet;
use roundsman_health::TargetPolicy;
use roundsman_protocol::limits;
use roundsman_store::StoreUrl;

use self::{
    setting::{Setting, Value, settings},
    values::{duration, fitting, log_format, networks, number, path, size, socket_addr, switch},
};

pub use merge::Mistakes;
pub use values::LogFormat;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

settings! {
    rpc: SocketAddr = local(5555), "ADDR", socket_addr,
        "RPC door: IP:PORT; port 0 takes any free one";
    http: SocketAddr = local(5556), "ADDR", socket_addr,
        "HTTP door: `/health`, `/ready`, `/metrics`, `/api/v1/status`, `/api/v1/graph`";
    store: StoreUrl = StoreUrl::sqlite("roundsman.db"), "URL", fitting,
        "Where registrations last: `memory:`, `sqlite:PATH`, `redis://HOST:PORT/DB` or `rediss://…`";
    strict: bool = false, "BOOL", switch,
        "Refuse to start over records that cannot be read, which are otherwise set aside (`roundsman.db.damaged`)";
    interval: Duration = 5 * SECOND, "TIME", duration(limits::INTERVAL),
        "Time between two visits of an instance that names no other";
    timeout: Duration = SECOND, "TIME", duration(limits::TIMEOUT),
        "Time that a visit may take, unless the instance names another";
    failures: u32 = 2, "N", number(1..=100),
        "Failed visits in a row that evict";
    probation: Duration = 60 * SECOND, "TIME", duration(SECOND..=DAY),
        "How long an evicted instance may come back without registering";
    start_deadline: Duration = 30 * SECOND, "TIME", duration(SECOND..=DAY),
        "How long a new instance may take until its first visit passes";
    brake_limit: Duration = 120 * SECOND, "TIME", duration(Duration::ZERO..=DAY),
        "How long evictions for silence are held back at most";
    drain_deadline: Duration = 10 * SECOND, "TIME", duration(Duration::ZERO..=HOUR),
        "How long a stopping server waits for calls in flight";
    allow_targets: Vec<IpNet> = Vec::new(), "CIDR", networks,
        "Networks that may be registered and visited, in whatever form an address is written and wherever a name moves",
        or "all but link-local, cloud metadata, multicast, unspecified";
    max_connections: usize = 16_384, "N", number(1..=1_000_000),
        "RPC connections at a time";
    max_http_connections: usize = 512, "N", number(1..=1_000_000),
        "HTTP connections at a time";
    max_frame: usize = limits::MAX_FRAME_BYTES, "BYTES", number(65_536..=limits::MAX_ANSWER_BYTES),
        "Bytes of an RPC frame";
    max_in_flight: usize = 1_024, "N", number(1..=1_000_000),
        "Calls in flight on one RPC connection";
    max_watches: usize = 20_000, "N", number(1..=10_000_000),
        "Watches that wait at a time";
    max_instances: usize = 200_000, "N", number(1..=10_000_000),
        "Instances, those on probation included";
    max_instances_per_namespace: usize = 150_000, "N", number(1..=10_000_000),
        "Instances in one namespace, so that no tenant takes all";
    max_instances_per_connection: usize = 20_000, "N", number(1..=10_000_000),
        "Instances that one RPC connection registered and that are still there";
    max_namespaces: usize = 1_000, "N", number(1..=1_000_000),
        "Namespaces that have an instance";
    max_memory: Option<u64> = None, "BYTES", size,
        "Bytes (`512M`, `2G`) that what is registered and what callers leave unread may take; a namespace gets at most three quarters of either",
        or "half of what the machine or the cgroup has";
    max_edges: usize = 20_000, "N", number(0..=1_000_000),
        "Edges of `roundsman graph`; beyond it new ones are counted in a metric only";
    max_queue: usize = 8_192, "N", number(1..=1_000_000),
        "Changes that wait for the writer";
    max_visits: usize = 10_000, "N", number(1..=100_000),
        "Visits at a time, those that wait for an answer included; cut to what the limit of open files leaves";
    max_kept: usize = 100_000, "N", number(0..=10_000_000),
        "Connections kept open to instances between visits; cut to what the limit of open files leaves";
    ready_file: Option<PathBuf> = None, "PATH", path,
        "Where the bound addresses are written, as JSON, once it serves";
    log_format: LogFormat = LogFormat::Human, "FORMAT", log_format,
        "`human` or `json`; `RUST_LOG` filters";
}

// === impl Config ===

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

impl fmt::Display for Config {
    /// As a configuration file, with every setting in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in SETTINGS.iter() {
            if let Some(value) = (setting.show)(self) {
                writeln!(f, "{} = {value}", setting.name)?;
            }
        }
        Ok(())
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
