//! The flags of `roundsman serve`, and their twins in the environment.

use std::path::PathBuf;

/// Flags and environment of the server.
///
/// All values are text here: they are checked together with those of the file, so that every mistake is reported
/// at once. Defaults are shown by hand, because a flag that is absent must not hide the file's value.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// RPC door: IP:PORT, port 0 takes any free one [default: 127.0.0.1:5555]
    #[arg(long, env = "ROUNDSMAN_RPC", value_name = "ADDR")]
    pub rpc: Option<String>,
    /// HTTP door: /health, /ready, /metrics, /api/v1/status, /api/v1/graph [default: 127.0.0.1:5556]
    #[arg(long, env = "ROUNDSMAN_HTTP", value_name = "ADDR")]
    pub http: Option<String>,
    /// Where registrations last: memory: | sqlite:PATH | redis://HOST:PORT/DB | rediss://… [default: sqlite:roundsman.db]
    #[arg(long, env = "ROUNDSMAN_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Refuse to start when the store has records that cannot be read, instead of setting them aside [default: false]
    #[arg(long, env = "ROUNDSMAN_STRICT", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<String>,
    /// Time between two visits of an instance [default: 5s]
    #[arg(long, env = "ROUNDSMAN_INTERVAL", value_name = "TIME")]
    pub interval: Option<String>,
    /// Time that a visit may take [default: 1s]
    #[arg(long, env = "ROUNDSMAN_TIMEOUT", value_name = "TIME")]
    pub timeout: Option<String>,
    /// Failed visits in a row that evict [default: 2]
    #[arg(long, env = "ROUNDSMAN_FAILURES", value_name = "N")]
    pub failures: Option<String>,
    /// How long an evicted instance may come back without registering [default: 60s]
    #[arg(long, env = "ROUNDSMAN_PROBATION", value_name = "TIME")]
    pub probation: Option<String>,
    /// How long a new instance may take until its first visit passes [default: 30s]
    #[arg(long, env = "ROUNDSMAN_START_DEADLINE", value_name = "TIME")]
    pub start_deadline: Option<String>,
    /// How long evictions for silence are held back at most [default: 2m]
    #[arg(long, env = "ROUNDSMAN_BRAKE_LIMIT", value_name = "TIME")]
    pub brake_limit: Option<String>,
    /// How long a stopping server waits for calls in flight [default: 10s]
    #[arg(long, env = "ROUNDSMAN_DRAIN_DEADLINE", value_name = "TIME")]
    pub drain_deadline: Option<String>,
    /// Networks that the rounds may visit [default: all but link-local, multicast and unspecified addresses]
    #[arg(long, env = "ROUNDSMAN_ALLOW_TARGETS", value_name = "CIDR", value_delimiter = ',', num_args = 1..)]
    pub allow_targets: Vec<String>,
    /// RPC connections at a time [default: 16384]
    #[arg(long, env = "ROUNDSMAN_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<String>,
    /// HTTP connections at a time [default: 512]
    #[arg(long, env = "ROUNDSMAN_MAX_HTTP_CONNECTIONS", value_name = "N")]
    pub max_http_connections: Option<String>,
    /// Bytes of an RPC frame [default: 1048576]
    #[arg(long, env = "ROUNDSMAN_MAX_FRAME", value_name = "BYTES")]
    pub max_frame: Option<String>,
    /// Calls in flight on one RPC connection [default: 1024]
    #[arg(long, env = "ROUNDSMAN_MAX_IN_FLIGHT", value_name = "N")]
    pub max_in_flight: Option<String>,
    /// Watches that wait at a time [default: 20000]
    #[arg(long, env = "ROUNDSMAN_MAX_WATCHES", value_name = "N")]
    pub max_watches: Option<String>,
    /// Instances, those on probation included [default: 200000]
    #[arg(long, env = "ROUNDSMAN_MAX_INSTANCES", value_name = "N")]
    pub max_instances: Option<String>,
    /// Instances in one namespace, those on probation included [default: 150000]
    #[arg(long, env = "ROUNDSMAN_MAX_INSTANCES_PER_NAMESPACE", value_name = "N")]
    pub max_instances_per_namespace: Option<String>,
    /// Instances that one RPC connection has registered and that are still there [default: 20000]
    #[arg(long, env = "ROUNDSMAN_MAX_INSTANCES_PER_CONNECTION", value_name = "N")]
    pub max_instances_per_connection: Option<String>,
    /// Namespaces that have an instance [default: 1000]
    #[arg(long, env = "ROUNDSMAN_MAX_NAMESPACES", value_name = "N")]
    pub max_namespaces: Option<String>,
    /// Memory that what is registered and what callers leave unread may take, such as 512M or 2G
    /// [default: half of what the machine or the cgroup has]
    #[arg(long, env = "ROUNDSMAN_MAX_MEMORY", value_name = "BYTES")]
    pub max_memory: Option<String>,
    /// Edges of the graph of who calls whom [default: 20000]
    #[arg(long, env = "ROUNDSMAN_MAX_EDGES", value_name = "N")]
    pub max_edges: Option<String>,
    /// Changes that wait for the writer [default: 8192]
    #[arg(long, env = "ROUNDSMAN_MAX_QUEUE", value_name = "N")]
    pub max_queue: Option<String>,
    /// Visits at a time, those that wait for an answer included [default: 10000, or what the limit of open files leaves]
    #[arg(long, env = "ROUNDSMAN_MAX_VISITS", value_name = "N")]
    pub max_visits: Option<String>,
    /// Connections kept open to instances between visits [default: 100000, or what the file descriptor limit leaves]
    #[arg(long, env = "ROUNDSMAN_MAX_KEPT", value_name = "N")]
    pub max_kept: Option<String>,
    /// Write the bound addresses to this file, as JSON, once the server serves
    #[arg(long, env = "ROUNDSMAN_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<String>,
    /// Log lines: human or json [default: human]
    #[arg(long, env = "ROUNDSMAN_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Read settings from a TOML file; its keys are the flags' names
    #[arg(long, env = "ROUNDSMAN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print it and exit
    #[arg(long)]
    pub check_config: bool,
}

impl ServeArgs {
    /// The settings that flags or environment gave, by name.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        let single = [
            ("rpc", &self.rpc),
            ("http", &self.http),
            ("store", &self.store),
            ("strict", &self.strict),
            ("interval", &self.interval),
            ("timeout", &self.timeout),
            ("failures", &self.failures),
            ("probation", &self.probation),
            ("start-deadline", &self.start_deadline),
            ("brake-limit", &self.brake_limit),
            ("drain-deadline", &self.drain_deadline),
            ("max-connections", &self.max_connections),
            ("max-http-connections", &self.max_http_connections),
            ("max-frame", &self.max_frame),
            ("max-in-flight", &self.max_in_flight),
            ("max-watches", &self.max_watches),
            ("max-instances", &self.max_instances),
            ("max-instances-per-namespace", &self.max_instances_per_namespace),
            ("max-instances-per-connection", &self.max_instances_per_connection),
            ("max-namespaces", &self.max_namespaces),
            ("max-memory", &self.max_memory),
            ("max-edges", &self.max_edges),
            ("max-queue", &self.max_queue),
            ("max-visits", &self.max_visits),
            ("max-kept", &self.max_kept),
            ("ready-file", &self.ready_file),
            ("log-format", &self.log_format),
        ];
        let given = single.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let networks = (!self.allow_targets.is_empty()).then(|| ("allow-targets", self.allow_targets.join(",")));
        given.chain(networks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;

    /// The README's table has every flag, with its twin in the environment and its default.
    #[test]
    fn the_readme_lists_every_flag() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        let command = ServeArgs::augment_args(clap::Command::new("serve"));
        let shown = crate::Config::default().to_string();
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "check_config") {
            let flag = argument.get_long().unwrap();
            let twin = argument.get_env().unwrap().to_str().unwrap();
            let row = format!("| `--{flag}` | `{twin}` | ");
            let default =
                readme.lines().find_map(|line| line.strip_prefix(&row)).unwrap_or_else(|| panic!("no row {row}"));
            let setting = shown.lines().find_map(|line| line.strip_prefix(&format!("{flag} = ")));
            let Some(setting) = setting.filter(|setting| *setting != "[]") else { continue };
            let setting = setting.trim_matches('"');
            assert!(default.starts_with(&format!("`{setting}`")), "--{flag} is {setting}, the README says {default}");
        }
    }
}
