//! Puts flags, environment, file and defaults together, and reports all mistakes at once.

use std::{collections::BTreeMap, fmt};

use super::{Config, SETTINGS, args::ServeArgs, file};

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
            given.values.insert(name.to_owned(), Value { text: text.to_owned(), source });
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

    fn take_all(&mut self, mut config: Config) -> Config {
        for setting in SETTINGS.iter() {
            let Some(value) = self.values.remove(&setting.name) else { continue };
            if let Err(rule) = (setting.read)(&mut config, &value.text) {
                self.mistakes.push(format!("{}: {rule}, got {:?}", value.source, value.text));
            }
        }
        config
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
    use std::time::Duration;

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
        let args = ServeArgs::default().with("interval", "2s");
        let text = "interval = \"3s\"\nstrict = true\nfailures = 4\nallow-targets = [\"10.0.0.0/8\", \"::1\"]\n";
        let config = with_file(text, args).unwrap();
        assert_eq!((config.interval, config.failures, config.strict), (Duration::from_secs(2), 4, true));
        assert_eq!(config.allow_targets.len(), 2);
        assert_eq!(config.timeout, Config::default().timeout);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let args = ServeArgs::default().with("rpc", "localhost").with("store", "mysql://x").with("timeout", "1h");
        let mistakes = with_file("intervall = \"3s\"\nfailures = 0\nmax-queue = true\n", args).unwrap_err();
        for part in ["--rpc", "--store", "ROUNDSMAN_TIMEOUT", "`intervall`", "failures in", "max-queue in"] {
            assert!(mistakes.contains(part), "{part}: {mistakes}");
        }
        assert_eq!(mistakes.matches("; ").count(), 7, "{mistakes}");
    }

    #[test]
    fn two_doors_are_not_one() {
        let doors = |addr: &str| ServeArgs::default().with("rpc", addr).with("http", addr);
        assert!(with_file("", doors("127.0.0.1:5999")).unwrap_err().contains("the same address as rpc"));
        assert!(with_file("", doors("127.0.0.1:0")).is_ok(), "any free port is another one each time");
    }

    /// What `--check-config` prints is a file with the same meaning, whatever is in it.
    #[test]
    fn what_is_shown_can_be_read_again() {
        let ready_file = Some("/tmp/a \"quoted\" \\ place".into());
        let allow_targets = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let set = Config { strict: true, max_memory: Some(1 << 30), ready_file, allow_targets, ..Config::default() };
        for config in [Config::default(), set] {
            let shown = config.to_string();
            assert_eq!(with_file(&shown, ServeArgs::default()).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_a_mistake() {
        assert!(with_file("interval = ", ServeArgs::default()).unwrap_err().contains("roundsman.toml"));
        let mut args = ServeArgs::default().with("failures", "3");
        args.config = Some("/nowhere/roundsman.toml".into());
        assert!(Config::gather(&args).unwrap_err().to_string().contains("cannot read"));
    }
}
