//! Sessions of earlier releases: the bytes that their clients and servers said to each other, recorded from the real
//! binaries, and what today's server says to the same clients.
//!
//! One file in `tests/sessions` for each version and codec. Each line is a frame: which connection, who said it, and
//! the text, or the bytes in hexadecimal.

mod record;
mod replay;

use std::{fmt::Write, path::PathBuf};

/// A frame that was said.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    connection: usize,
    by: Side,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Client,
    Server,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sessions")).join(format!("{name}.txt"))
}

/// The sessions that are recorded, by name.
fn recorded() -> Vec<(String, Vec<Said>)> {
    let files = std::fs::read_dir(path("x").parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let mut sessions: Vec<_> = files
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let lines = std::fs::read_to_string(&file).unwrap();
            (name, lines.lines().map(Said::read).collect())
        })
        .collect();
    sessions.sort_by(|(one, _), (other, _)| one.cmp(other));
    sessions
}

// === impl Said ===

impl Said {
    fn read(line: &str) -> Self {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("no frame: {line}"));
        let (connection, by, text) = (next().parse().unwrap(), next(), next());
        let by = if by == ">" { Side::Client } else { Side::Server };
        let hex = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        let bytes = || (0..text.len()).step_by(2).map(hex).collect();
        let frame = if text.starts_with('{') { text.as_bytes().to_vec() } else { bytes() };
        Self { connection, by, frame }
    }

    fn line(&self) -> String {
        let arrow = if self.by == Side::Client { '>' } else { '<' };
        let mut line = format!("{} {arrow} ", self.connection);
        match std::str::from_utf8(&self.frame).ok().filter(|text| text.starts_with('{')) {
            Some(text) => line.push_str(text),
            None => self.frame.iter().for_each(|byte| write!(line, "{byte:02x}").unwrap()),
        }
        line
    }
}
