//! Tables that fit the terminal: the last column is wrapped, all others are as wide as they need to be.

use crate::{
    exit::Failure,
    output::{Screen, Style, printable},
};

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    titles: Vec<String>,
    /// Whether the titles are printed.
    headers: bool,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

/// Between two columns.
const GAP: usize = 2;
/// Narrower than this, wrapping the last column would do more harm than good.
const NARROWEST: usize = 16;

// === impl Table ===

impl Table {
    pub(crate) fn new(titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { titles: titles.into_iter().map(Into::into).collect(), headers: true, rows: Vec::new() }
    }

    /// Whether the titles are printed, as they are unless somebody says otherwise.
    pub(crate) fn headers(&mut self, shown: bool) {
        self.headers = shown;
    }

    /// Adds a row with as many cells as there are titles.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it.
    pub(crate) fn print(&self, screen: &mut Screen) -> Result<(), Failure> {
        let text = self.render(screen.width, screen.colour);
        screen.raw(text.as_bytes())
    }

    fn render(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths();
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        // What is left for the last column, where there is an edge.
        let room = width.map(|width| width.saturating_sub(before_last)).filter(|room| *room >= NARROWEST);
        let titles = self.titles.iter().map(|text| Cell { text: text.clone(), style: Style::Bold }).collect();
        let titles = self.headers.then_some(&titles);
        let mut out = String::new();
        for row in titles.into_iter().chain(&self.rows) {
            render_row(&mut out, row, &widths, room, colour);
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        let width = |nth: usize, title: &String| {
            let cells = self.rows.iter().filter_map(|row| row.get(nth));
            let title = if self.headers { title.chars().count() } else { 0 };
            cells.map(|cell| cell.text.chars().count()).chain([title]).max().unwrap_or_default()
        };
        self.titles.iter().enumerate().map(|(nth, title)| width(nth, title)).collect()
    }
}

fn render_row(out: &mut String, row: &[Cell], widths: &[usize], room: Option<usize>, colour: bool) {
    let paint = |cell: &Cell, text: &str| if colour { cell.style.paint(text) } else { text.to_owned() };
    let Some((last, others)) = row.split_last() else { return };
    let mut indent = 0;
    for (cell, width) in others.iter().zip(widths) {
        let pad = width.saturating_sub(cell.text.chars().count()) + GAP;
        out.push_str(&paint(cell, &cell.text));
        out.extend(std::iter::repeat_n(' ', pad));
        indent += width + GAP;
    }
    let lines = room.map_or_else(|| vec![last.text.clone()], |room| wrap(&last.text, room));
    for (nth, line) in lines.iter().enumerate() {
        if nth > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&paint(last, line));
        // No line ends in blanks, not even where the last cell is empty.
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// Breaks a text into lines of at most `width` characters, between words where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let Some(line) = lines.last_mut() else { return lines };
            let used = line.chars().count();
            let blank = usize::from(used > 0);
            if used + blank + word.len() <= width {
                line.extend(std::iter::repeat_n(' ', blank));
                line.extend(word);
                break;
            }
            if used == 0 {
                line.extend(word.drain(..width.min(word.len())));
            }
            lines.push(String::new());
        }
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

// === impl Cell ===

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, Style::Plain)
    }

    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: printable(text.as_ref()), style }
    }

    /// A number, unobtrusive when it is nothing.
    pub(crate) fn count(count: u32, style: Style) -> Self {
        Self::styled(count.to_string(), if count == 0 { Style::Dim } else { style })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["ID", "STATUS", "REASON"]);
        table.row([
            Cell::new("product-1"),
            Cell::styled("evicted", Style::Red),
            Cell::new("GET /health: connection refused"),
        ]);
        table.row([Cell::new("product-with-a-longer-id"), Cell::styled("passing", Style::Green), Cell::new("")]);
        table
    }

    #[test]
    fn columns_line_up_and_a_pipe_gets_whole_lines() {
        assert_eq!(
            table().render(None, false),
            "ID                        STATUS   REASON\n\
             product-1                 evicted  GET /health: connection refused\n\
             product-with-a-longer-id  passing\n"
        );
    }

    #[test]
    fn the_last_column_is_wrapped_at_the_terminals_edge() {
        let text = table().render(Some(60), false);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert!(
            text.contains("evicted  GET /health: connection\n                                   refused\n"),
            "{text}"
        );
        // Too narrow to be of any use: left alone.
        assert!(table().render(Some(40), false).contains("connection refused"));
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let text = table().render(None, true);
        assert!(text.contains("\u{1b}[31mevicted\u{1b}[0m  GET"), "{text:?}");
    }

    #[test]
    fn long_words_are_broken_and_nothing_is_lost() {
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a b c d e", 3), ["a b", "c d", "e"]);
    }
}
