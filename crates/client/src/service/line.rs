//! The command line that all services have, with that of each one's own, and the environment.

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, error::ErrorKind};

use super::settings::{SETTINGS, Setting, Settings};

/// The flag that asks for a probe, which is no setting, and the id of its argument.
const PROBE: (&str, &str) = ("probe", "roundsman.probe");

/// What a service says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) version: Option<&'static str>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Line<F> {
    pub(super) settings: Settings,
    /// Whether another one is to be asked for its health.
    pub(super) probe: bool,
    /// The flags of its own.
    pub(super) own: F,
}

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum Unread {
    /// Somebody asked for this page.
    Page(clap::Error),
    /// This is wrong.
    Mistake(String),
}

/// Reads flags and environment on top of `settings`. All mistakes are told at once, on one line.
pub(super) fn read<F: Args>(
    about: &About,
    settings: &Settings,
    args: impl IntoIterator<Item: Into<OsString> + Clone>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Line<F>, Unread> {
    let mut command = command::<F>(about, settings);
    let matches = command.try_get_matches_from_mut(args).map_err(unread)?;
    let own = F::from_arg_matches(&matches).map_err(|error| unread(error.format(&mut command)))?;
    let (mut settings, mut mistakes) = (settings.clone(), Vec::new());
    for setting in SETTINGS {
        mistakes.extend(given(setting, &matches, &variable).into_iter().filter_map(|(name, text)| {
            let read =
                text.map_err(|()| "must be UTF-8".to_owned()).and_then(|text| (setting.read)(&mut settings, &text));
            read.err().map(|rule| format!("{name}: {rule}"))
        }));
    }
    let probe = matches.try_get_one::<bool>(PROBE.1).ok().flatten().is_some_and(|probe| *probe);
    // A probe advertises nothing.
    if mistakes.is_empty() && !probe {
        mistakes.extend(settings.validate().err());
    }
    if mistakes.is_empty() { Ok(Line { settings, probe, own }) } else { Err(Unread::Mistake(mistakes.join("; "))) }
}

/// The values of a setting, each with the words in which it was given.
fn given(
    setting: &Setting,
    matches: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(String, Result<String, ()>)> {
    let text = |text: &OsString| text.to_str().map(str::to_owned).ok_or(());
    // A flag that the service has taken for itself is not there.
    if let Ok(Some(values)) = matches.try_get_many::<OsString>(setting.variable) {
        return values.map(|value| (format!("--{} {}", setting.flag, value.display()), text(value))).collect();
    }
    let Some(value) = variable(setting.variable).filter(|value| !value.is_empty()) else { return Vec::new() };
    let name = format!("{}={}", setting.variable, value.display());
    match text(&value) {
        Ok(list) if setting.many => {
            let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| (name.clone(), Ok(part.to_owned()))).collect()
        }
        value => vec![(name, value)],
    }
}

fn command<F: Args>(about: &About, settings: &Settings) -> Command {
    let own = F::augment_args(Command::new(about.name));
    let free = |flag: &str| own.get_arguments().all(|arg| arg.get_long() != Some(flag));
    let standard = SETTINGS.iter().filter(|setting| free(setting.flag)).map(|setting| arg(setting, settings));
    let mut command = Command::new(about.name).args(standard);
    if free(PROBE.0) {
        let help = "Serve nothing; ask the one that listens for its health, and exit with 0 or 1 (for container health checks)";
        command = command.arg(Arg::new(PROBE.1).long(PROBE.0).action(ArgAction::SetTrue).help(help));
    }
    if let Some(version) = about.version {
        command = command.version(version);
    }
    // What its flags are described with describes them, and not the service.
    F::augment_args(command).about(about.about).long_about(None)
}

/// The flag of a setting. Ids of arguments are the service's own to choose, so it goes by its variable.
fn arg(setting: &'static Setting, settings: &Settings) -> Arg {
    let default = match setting.flag {
        "listen" => settings.listen.to_string(),
        _ => setting.default.to_owned(),
    };
    let help = format!("{} [env: {}] [default: {default}]", setting.help, setting.variable);
    let action = if setting.many { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(setting.variable).long(setting.flag).value_name(setting.value).action(action).help(help);
    arg.value_parser(clap::value_parser!(OsString))
}

/// A page as it is, and a mistake on one line.
fn unread(error: clap::Error) -> Unread {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Unread::Page(error);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // What follows the mistake and its details is usage.
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = said.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    Unread::Mistake(said.collect::<Vec<_>>().join(" "))
}
