//! Wrong usage, in one line that says what to do.

use std::ffi::OsStr;

use crate::output::printable;

/// What clap says on many lines, on one, with the page to read.
pub(crate) fn sentence(error: &clap::Error, args: impl Iterator<Item: AsRef<OsStr>>, commands: &[&str]) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let command = args.skip(1).find_map(|arg| commands.iter().find(|command| arg.as_ref() == OsStr::new(command)));
    // Whoever mistypes a flag does not mean a value. Only the command of exec may have flags of its own.
    let misleads = |line: &&str| line.starts_with("tip: to pass ") && command != Some(&"exec");
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty() && !misleads(line));
    let said = said.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let mut sentence = String::new();
    for line in said {
        let (gap, line) = match line.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None if sentence.is_empty() => ("", line),
            None if sentence.ends_with(':') || line.starts_with('[') => (" ", line),
            None => (", ", line),
        };
        sentence.push_str(gap);
        sentence.push_str(line);
    }
    let page = command.map_or_else(|| "roundsman --help".to_owned(), |command| format!("roundsman {command} --help"));
    format!("{}; see `{page}`", printable(&sentence))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn said(args: &[&str]) -> String {
        let args = [&["roundsman"], args].concat();
        sentence(&Cli::try_parse_from(&args).unwrap_err(), args.iter(), &["exec", "get", "list"])
    }

    #[test]
    fn a_mistyped_flag_is_not_taken_for_a_value() {
        assert_eq!(said(&["get", "a", "--frob"]), "unexpected argument '--frob' found; see `roundsman get --help`");
        let exec = said(&["exec", "--service", "a", "-x"]);
        assert!(exec.contains("use '-- -x'"), "{exec}");
    }

    #[test]
    fn mistakes_are_told_on_one_line() {
        assert_eq!(
            said(&["get"]),
            "the following required arguments were not provided: <NAME>; see `roundsman get --help`"
        );
        assert_eq!(
            said(&["lst"]),
            "unrecognized subcommand 'lst'; a similar subcommand exists: 'list'; see `roundsman --help`"
        );
        assert_eq!(
            said(&["list", "-o", "x\nml"]),
            "invalid value 'x, ml' for '--output <FORMAT>' [possible values: table, wide, json, yaml, name]; see \
             `roundsman list --help`"
        );
    }
}
