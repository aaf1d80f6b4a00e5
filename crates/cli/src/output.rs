//! Printing: JSON, colours, ages, and a pipe that may be closed at any moment.

use std::{
    io::{self, IsTerminal, StdoutLock, Write},
    time::Duration,
};

use roundsman::{InstanceStatus, Timestamp, protocol::Clock};
use serde::Serialize;

use crate::{
    args::Data,
    exit::Failure,
    wrap::{shown, wrap},
};

/// The most of what others say that is told in an error.
const SHORT: usize = 600;
/// Narrower than this, wrapping would do more harm than good.
pub(crate) const NARROWEST: usize = 16;

/// Standard output, and what it can show.
#[derive(Debug)]
pub(crate) struct Screen {
    out: StdoutLock<'static>,
    /// Whether it is a terminal.
    terminal: bool,
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
        Self { out: out.lock(), terminal, colour: terminal && !dumb && !refused("NO_COLOR") }
    }

    /// Columns, when it is a terminal; a pipe has no width. Asked anew each time: windows are dragged.
    pub(crate) fn width(&self) -> Option<usize> {
        let size = if self.terminal { terminal_size::terminal_size() } else { None };
        size.map(|(width, _)| usize::from(width.0))
    }

    /// Writes a line and flushes it.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// Writes a line whose `rest`, where a terminal is too narrow for it, goes on below its own beginning.
    pub(crate) fn wrapped(&mut self, begin: &str, rest: &str) -> Result<(), Failure> {
        let Some(width) = self.width() else { return self.line(&format!("{begin}{rest}")) };
        for line in folded(begin, rest, width) {
            self.line(&line)?;
        }
        Ok(())
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

fn folded(begin: &str, rest: &str, width: usize) -> Vec<String> {
    let before = shown(begin);
    if width < NARROWEST || before + shown(rest) <= width {
        return vec![format!("{begin}{rest}")];
    }
    // Beside a beginning that fills the line there is no room: then all of it is one text.
    let indent = if before + NARROWEST <= width { before } else { 4.min(width - NARROWEST) };
    let text = if indent == before { rest.to_owned() } else { format!("{begin}{rest}") };
    let lines = wrap(&text, width - indent).into_iter().enumerate();
    let lines = lines.map(|(nth, line)| match nth {
        0 if indent == before => format!("{begin}{line}"),
        0 => line,
        _ => format!("{:indent$}{line}", ""),
    });
    lines.map(|line| line.trim_end_matches(' ').to_owned()).collect()
}

/// Text from elsewhere, without what could play tricks on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character turns the direction of writing, or ends a line: it makes what is read another thing than what is there.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What somebody else says, on one line of a sane length.
pub(crate) fn short(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}… (and more)", text.get(..end).unwrap_or_default()),
        None => text,
    }
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
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2028}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(printable("größer → 日本"), "größer → 日本");
    }

    #[test]
    fn what_others_say_is_cut() {
        assert_eq!(short("no\nroom"), "no\u{fffd}room");
        let cut = short(&"ä".repeat(2_000));
        assert!(cut.chars().count() < 620 && cut.ends_with("(and more)"), "{cut}");
    }

    #[test]
    fn lines_go_on_below_their_beginning() {
        assert_eq!(folded("10:00  ", "all is well", 40), ["10:00  all is well"]);
        let text = "GET /health: connection refused, three times";
        assert_eq!(
            folded("10:00  ", text, 27),
            ["10:00  GET /health:", "       connection refused,", "       three times"]
        );
        let lines = folded("a beginning that fills the line  ", text, 40);
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), format!("a beginning that fills the line{text}").replace(' ', ""));
        assert_eq!(folded("a", text, 5).len(), 1, "too narrow to be of any use");
    }
}
