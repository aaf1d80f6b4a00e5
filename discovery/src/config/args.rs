//! The flags of `roundsman serve`, and their twins in the environment: made from the table of settings.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{ArgMatches, Command};

use super::SETTINGS;

/// Flags and environment of the server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    given: Given,
    /// Read settings from a TOML file; its keys are the flags' names
    #[arg(long, env = "ROUNDSMAN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print it and exit
    #[arg(long)]
    pub check_config: bool,
}

/// The settings that flags or environment gave, by name.
///
/// All values are text here: they are checked together with those of the file, so that every mistake is reported
/// at once.
#[derive(Clone, Debug, Default)]
struct Given(BTreeMap<String, String>);

// === impl ServeArgs ===

impl ServeArgs {
    /// As if the flag `--name value` had been given.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.given.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The settings that flags or environment gave, by name.
    pub(super) fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

// === impl Given ===

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(|setting| setting.arg()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS.iter() {
            if let Some(values) = matches.get_many::<String>(&setting.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.0.insert(setting.name.clone(), values.join(","));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn readme() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap()
    }

    fn command() -> Command {
        ServeArgs::augment_args(Command::new("serve"))
    }

    /// The README's table has every flag, with its twin in the environment and its default.
    #[test]
    fn the_readme_lists_every_flag() {
        let (readme, command) = (readme(), command());
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

    #[test]
    fn the_readme_says_of_each_setting_what_the_table_says() {
        let rows = SETTINGS.iter().map(|setting| {
            let default = match (setting.unset, setting.default()) {
                (None, Some(value)) => format!("`{value}`"),
                (_, text) => text.unwrap_or_else(|| "none".to_owned()),
            };
            format!("| `--{}` | `{}` | {default} | {} |\n", setting.name, setting.env, setting.help)
        });
        let rows: String = rows.collect();
        assert!(readme().contains(&rows), "the README's table should have these rows:\n{rows}");
    }

    #[test]
    fn flags_of_every_arity_are_read() {
        let matches = command().get_matches_from([
            "serve",
            "--strict",
            "--allow-targets",
            "10.0.0.0/8,::1",
            "192.168.0.0/16",
            "--interval",
            "2s",
        ]);
        let args = ServeArgs::from_arg_matches(&matches).unwrap();
        let given: Vec<_> = args.given().collect();
        let expected = [("allow-targets", "10.0.0.0/8,::1,192.168.0.0/16"), ("interval", "2s"), ("strict", "true")];
        assert_eq!(given, expected);
        let help = command().render_help().to_string();
        assert!(help.contains("--interval <TIME>") && help.contains("[default: 5s]"), "{help}");
        assert!(help.contains("--strict[=<BOOL>]") && !help.contains('`'), "{help}");
        command().debug_assert();
    }
}
