//! Printing: JSON, colours, ages, and a pipe that may be closed at any moment.

use std::{
    io::{self, IsTerminal, StdoutLock, Write},
    time::Duration,
};

use roundsman::{InstanceStatus, Timestamp, protocol::Clock};
use serde::Serialize;

use crate::{args::Data, exit::Failure};

/// Standard output, and what it can show.
#[derive(Debug)]
pub(crate) struct Screen {
    out: StdoutLock<'static>,
    /// Columns, when it is a terminal; a pipe has no width.
    pub(crate) width: Option<usize>,
    /// Whether it understands colours, and the user wants them.
    pub(crate) colour: bool,
}

/// A colour of the terminal, by the code that switches it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
    Cyan,
}

// === impl Screen ===

impl Screen {
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let refused = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self { out: out.lock(), width: width.filter(|_| terminal), colour: terminal && !dumb && !refused("NO_COLOR") }
    }

    /// Writes a line and flushes it.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// Writes bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    /// Writes a value for programs.
    pub(crate) fn data<T: Serialize + ?Sized>(&mut self, data: Data, value: &T) -> Result<(), Failure> {
        match data {
            Data::Json => self.line(&serde_json::to_string_pretty(value)?),
            Data::Yaml => self.raw(yaml(value)?.as_bytes()),
        }
    }

    /// Writes one of many values: JSON on a line of its own, YAML as a document of its own.
    pub(crate) fn one_of_many<T: Serialize + ?Sized>(&mut self, data: Data, value: &T) -> Result<(), Failure> {
        match data {
            Data::Json => self.line(&serde_json::to_string(value)?),
            Data::Yaml => self.raw(format!("---\n{}", yaml(value)?).as_bytes()),
        }
    }

    /// The text in a colour, where there are colours.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { style.paint(text) } else { text.to_owned() }
    }
}

// === impl Style ===

impl Style {
    pub(crate) fn of(status: InstanceStatus) -> Self {
        match status {
            InstanceStatus::Passing => Self::Green,
            InstanceStatus::Suspect => Self::Yellow,
            InstanceStatus::Evicted => Self::Red,
            InstanceStatus::Draining => Self::Cyan,
            InstanceStatus::Starting => Self::Dim,
        }
    }

    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Cyan => 36,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

fn yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let mut text = serde_saphyr::to_string(&value).map_err(|error| Failure::Yaml(error.to_string()))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The time on this machine.
pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// A moment in UTC, to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// How long ago, in one unit: `12s ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", age(now.since(then)))
}

/// A duration in the one unit that says enough: `12s`, `4m`, `3h`, `9d`.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text from elsewhere, without what could play tricks on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let ages = [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "47h", "2d"]);
    }

    #[test]
    fn texts_that_yaml_could_take_for_something_else_stay_texts() {
        let value = serde_json::json!({"version": "1.10", "zone": "no", "reason": "GET /health: 200", "tags": [], "none": null});
        let text = yaml(&value).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        for line in ["version: \"1.10\"", "zone: \"no\"", "tags: []", "none: null"] {
            assert!(text.replace('\'', "\"").lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("reason: \"GET /health: 200\"") || text.contains("reason: 'GET /health: 200'"), "{text}");
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
