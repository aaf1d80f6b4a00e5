//! Tables that fit the terminal: the last column is wrapped, and where that is not enough, the widest ones with it.

use crate::{
    exit::Failure,
    output::{NARROWEST, Screen, Style, printable},
    wrap::wrap,
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
/// Narrower than this no column is made.
const THINNEST: usize = 4;

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
        let widths = match width {
            Some(width) => fitting(self.widths(), width),
            None => self.widths(),
        };
        let titles = self.titles.iter().map(|text| Cell { text: text.clone(), style: Style::Bold }).collect();
        let titles = self.headers.then_some(&titles);
        let mut out = String::new();
        for row in titles.into_iter().chain(&self.rows) {
            render_row(&mut out, row, &widths, colour);
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

/// Makes columns narrower until all of them fit, the last one first, then the widest. A table that cannot fit is left alone.
fn fitting(mut widths: Vec<usize>, width: usize) -> Vec<usize> {
    let Some(room) = width.checked_sub(GAP * widths.len().saturating_sub(1)) else { return widths };
    let total: usize = widths.iter().sum();
    if total <= room || room < THINNEST * widths.len() {
        return widths;
    }
    if let Some(last) = widths.last_mut() {
        let least = NARROWEST.min(*last);
        *last = last.saturating_sub(total - room).max(least);
    }
    // The widest give way until they are as wide as the next, and so on.
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max() else { break };
        if *widest <= THINNEST {
            break;
        }
        *widest -= 1;
    }
    widths
}

fn render_row(out: &mut String, row: &[Cell], widths: &[usize], colour: bool) {
    let paint = |cell: &Cell, text: &str| if colour { cell.style.paint(text) } else { text.to_owned() };
    let columns: Vec<_> =
        row.iter().zip(widths).map(|(cell, width)| (cell, wrap(&cell.text, *width), *width)).collect();
    let height = columns.iter().map(|(_, lines, _)| lines.len()).max().unwrap_or_default();
    for nth in 0..height {
        for (cell, lines, width) in &columns {
            let line = lines.get(nth).map_or("", String::as_str);
            if !line.is_empty() {
                out.push_str(&paint(cell, line));
            }
            let pad = width.saturating_sub(line.chars().count()) + GAP;
            out.extend(std::iter::repeat_n(' ', pad));
        }
        // No line ends in blanks, not even where the last cell is empty.
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
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
        let text = table().render(Some(40), false);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let text = table().render(None, true);
        assert!(text.contains("\u{1b}[31mevicted\u{1b}[0m  GET"), "{text:?}");
    }

    #[test]
    fn where_the_last_column_is_not_enough_the_widest_give_way_too() {
        let mut table = Table::new(["TIME", "INSTANCE", "WHO", "REASON"]);
        let reason = "GET /health: connection refused by the one who was asked";
        table.row([
            Cell::new("12s ago"),
            Cell::new("p".repeat(100)),
            Cell::new("order@10.0.0.9:4711"),
            Cell::new(reason),
        ]);
        for width in [120, 80, 60, 40, 24] {
            let text = table.render(Some(width), false);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert_eq!(text.matches('p').count(), 100, "{text}");
        }
        assert!(table.render(Some(80), false).contains("12s ago  ppp"), "what is short stays whole");
        assert_eq!(table.render(Some(12), false).lines().count(), 2, "too narrow to be of any use: left alone");
    }

    #[test]
    fn wide_lists_fit() {
        let mut table = Table::new((0..12).map(|nth| format!("COLUMN{nth}")));
        table.row((0..12).map(|nth| Cell::new("word ".repeat(nth))));
        for width in [80, 100, 120] {
            let text = table.render(Some(width), false);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }
}
