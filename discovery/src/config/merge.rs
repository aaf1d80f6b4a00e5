//! Puts flags, environment, file and defaults together, and reports all mistakes at once.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use roundsman_protocol::limits;

use super::{
    Config,
    args::ServeArgs,
    file,
    values::{duration, network, number, size, socket_addr},
};

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

/// The settings that were given, and what was wrong with those taken out so far.
struct Given {
    values: BTreeMap<String, Value>,
    mistakes: Vec<String>,
}

struct Value {
    text: String,
    source: String,
}

impl Config {
    /// The configuration that flags, environment and the file they name amount to.
    /// Flags go before environment, environment before file, file before defaults.
    ///
    /// # Errors
    /// All mistakes, each naming the setting, where it came from and the rule.
    pub fn gather(args: &ServeArgs) -> Result<Self, Mistakes> {
        let mut given = Given { values: BTreeMap::new(), mistakes: Vec::new() };
        if let Some(path) = &args.config {
            given.add_file(path);
        }
        for (name, text) in args.given() {
            let source = format!("--{name} or ROUNDSMAN_{}", name.replace('-', "_").to_uppercase());
            given.values.insert(name.to_owned(), Value { text, source });
        }
        let config = given.take_all(Self::default());
        let unknown =
            given.values.into_iter().map(|(name, value)| format!("{}: no such setting `{name}`", value.source));
        given.mistakes.extend(unknown);
        if config.timeout > config.interval {
            given.mistakes.push("timeout: must not be longer than the interval".to_owned());
        }
        if config.rpc == config.http && config.rpc.port() != 0 {
            given.mistakes.push(format!("http: must not be the same address as rpc, {}", config.rpc));
        }
        if given.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(given.mistakes)) }
    }
}

// === impl Given ===

impl Given {
    fn add_file(&mut self, path: &std::path::Path) {
        let entries = match file::read(path) {
            Ok(entries) => entries,
            Err(mistake) => return self.mistakes.push(mistake),
        };
        for (name, value) in entries {
            let source = format!("{name} in {}", path.display());
            match value {
                Ok(text) => drop(self.values.insert(name, Value { text, source })),
                Err(rule) => self.mistakes.push(format!("{source}: {rule}")),
            }
        }
    }

    fn take<T>(&mut self, name: &str, target: &mut T, read: impl Fn(&str) -> Result<T, String>) {
        let Some(value) = self.values.remove(name) else { return };
        match read(&value.text) {
            Ok(read) => *target = read,
            Err(rule) => self.mistakes.push(format!("{}: {rule}, got {:?}", value.source, value.text)),
        }
    }

    fn take_all(&mut self, mut config: Config) -> Config {
        let c = &mut config;
        self.take("rpc", &mut c.rpc, socket_addr);
        self.take("http", &mut c.http, socket_addr);
        self.take("store", &mut c.store, |text| text.parse().map_err(|error| format!("{error}")));
        self.take("strict", &mut c.strict, |text| text.parse().map_err(|_| "must be true or false".to_owned()));
        self.take_times(c);
        self.take("failures", &mut c.failures, number(1..=100));
        self.take("allow-targets", &mut c.allow_targets, |text| {
            text.split(',').map(|part| network(part.trim())).collect()
        });
        self.take("max-connections", &mut c.max_connections, number(1..=1_000_000));
        self.take("max-http-connections", &mut c.max_http_connections, number(1..=1_000_000));
        self.take("max-frame", &mut c.max_frame, number(65_536..=limits::MAX_ANSWER_BYTES));
        self.take("max-in-flight", &mut c.max_in_flight, number(1..=1_000_000));
        self.take("max-watches", &mut c.max_watches, number(1..=10_000_000));
        self.take("max-instances", &mut c.max_instances, number(1..=10_000_000));
        self.take("max-instances-per-namespace", &mut c.max_instances_per_namespace, number(1..=10_000_000));
        self.take("max-instances-per-connection", &mut c.max_instances_per_connection, number(1..=10_000_000));
        self.take("max-memory", &mut c.max_memory, |text| size(text).map(Some));
        self.take("max-namespaces", &mut c.max_namespaces, number(1..=1_000_000));
        self.take("max-edges", &mut c.max_edges, number(0..=1_000_000));
        self.take("max-queue", &mut c.max_queue, number(1..=1_000_000));
        self.take("max-visits", &mut c.max_visits, number(1..=100_000));
        self.take("max-kept", &mut c.max_kept, number(0..=10_000_000));
        self.take("ready-file", &mut c.ready_file, |text| Ok(Some(PathBuf::from(text))));
        self.take("log-format", &mut c.log_format, str::parse);
        config
    }

    fn take_times(&mut self, c: &mut Config) {
        let hour = Duration::from_secs(3_600);
        self.take("interval", &mut c.interval, duration(limits::INTERVAL));
        self.take("timeout", &mut c.timeout, duration(limits::TIMEOUT));
        self.take("probation", &mut c.probation, duration(Duration::from_secs(1)..=24 * hour));
        self.take("start-deadline", &mut c.start_deadline, duration(Duration::from_secs(1)..=24 * hour));
        self.take("brake-limit", &mut c.brake_limit, duration(Duration::ZERO..=24 * hour));
        self.take("drain-deadline", &mut c.drain_deadline, duration(Duration::ZERO..=hour));
    }
}

// === impl Mistakes ===

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, mut args: ServeArgs) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roundsman.toml");
        std::fs::write(&path, text).unwrap();
        args.config = Some(path);
        Config::gather(&args).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let args = ServeArgs { interval: Some("2s".to_owned()), ..ServeArgs::default() };
        let text = "interval = \"3s\"\nstrict = true\nfailures = 4\nallow-targets = [\"10.0.0.0/8\", \"::1\"]\n";
        let config = with_file(text, args).unwrap();
        assert_eq!((config.interval, config.failures, config.strict), (Duration::from_secs(2), 4, true));
        assert_eq!(config.allow_targets.len(), 2);
        assert_eq!(config.timeout, Config::default().timeout);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let args = ServeArgs {
            rpc: Some("localhost".to_owned()),
            store: Some("mysql://x".to_owned()),
            timeout: Some("1h".to_owned()),
            ..ServeArgs::default()
        };
        let mistakes = with_file("intervall = \"3s\"\nfailures = 0\nmax-queue = true\n", args).unwrap_err();
        for part in ["--rpc", "--store", "ROUNDSMAN_TIMEOUT", "`intervall`", "failures in", "max-queue in"] {
            assert!(mistakes.contains(part), "{part}: {mistakes}");
        }
        assert_eq!(mistakes.matches("; ").count(), 7, "{mistakes}");
    }

    #[test]
    fn two_doors_are_not_one() {
        let doors =
            |addr: &str| ServeArgs { rpc: Some(addr.to_owned()), http: Some(addr.to_owned()), ..ServeArgs::default() };
        assert!(with_file("", doors("127.0.0.1:5999")).unwrap_err().contains("the same address as rpc"));
        assert!(with_file("", doors("127.0.0.1:0")).is_ok(), "any free port is another one each time");
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_a_mistake() {
        assert!(with_file("interval = ", ServeArgs::default()).unwrap_err().contains("roundsman.toml"));
        let args = ServeArgs { config: Some("/nowhere/roundsman.toml".into()), ..ServeArgs::default() };
        assert!(Config::gather(&args).unwrap_err().to_string().contains("cannot read"));
    }
}
