//! Tables that fit the terminal: the last column is wrapped, and where that is not enough, a row takes several lines.

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
/// What the second line of a row begins with, and each after it.
const INDENT: usize = 4;

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
        let text = self.render(screen.width(), screen.colour);
        screen.raw(text.as_bytes())
    }

    fn render(&self, width: Option<usize>, colour: bool) -> String {
        let lines = folded(self.widths(), width);
        let titles = self.titles.iter().map(|text| Cell { text: text.clone(), style: Style::Bold }).collect();
        let titles = self.headers.then_some(&titles);
        let mut out = String::new();
        for row in titles.into_iter().chain(&self.rows) {
            render_row(&mut out, row, &lines, colour);
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

/// Which columns are on each line of a row, by their widths.
fn folded(widths: Vec<usize>, edge: Option<usize>) -> Vec<Vec<usize>> {
    let Some(edge) = edge.filter(|edge| *edge >= NARROWEST) else { return vec![widths] };
    let (last, mut used) = (widths.len().saturating_sub(1), 0);
    let mut lines = vec![Vec::new()];
    for (nth, width) in widths.into_iter().enumerate() {
        // The last column is wrapped, where there is room for that.
        let least = if nth == last { width.min(NARROWEST) } else { width };
        let begins = lines.last().is_none_or(Vec::is_empty);
        if !begins && used + GAP + least > edge {
            lines.push(Vec::new());
            used = INDENT;
        } else if !begins {
            used += GAP;
        }
        let width = width.min(edge - used);
        used += width;
        if let Some(line) = lines.last_mut() {
            line.push(width);
        }
    }
    lines
}

fn render_row(out: &mut String, mut row: &[Cell], lines: &[Vec<usize>], colour: bool) {
    for (nth, widths) in lines.iter().enumerate() {
        let (here, rest) = row.split_at(widths.len().min(row.len()));
        render_cells(out, here, widths, if nth == 0 { 0 } else { INDENT }, colour);
        row = rest;
    }
}

/// Cells beside each other, of which each may have several lines.
fn render_cells(out: &mut String, cells: &[Cell], widths: &[usize], indent: usize, colour: bool) {
    let columns: Vec<_> =
        cells.iter().zip(widths).map(|(cell, width)| (cell, wrap(&cell.text, *width), *width)).collect();
    let height = columns.iter().map(|(_, lines, _)| lines.len()).max().unwrap_or_default();
    for nth in 0..height {
        out.extend(std::iter::repeat_n(' ', indent));
        for (cell, lines, width) in &columns {
            let line = lines.get(nth).map_or("", String::as_str);
            if !line.is_empty() {
                out.push_str(&if colour { cell.style.paint(line) } else { line.to_owned() });
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
    fn where_the_last_column_is_not_enough_a_row_takes_several_lines() {
        let mut table = Table::new(["TIME", "INSTANCE", "WHO", "REASON"]);
        let reason = "GET /health: connection refused by the one who was asked";
        table.row([Cell::new("12s ago"), Cell::new("p1"), Cell::new("order@10.0.0.9:4711"), Cell::new(reason)]);
        assert_eq!(
            table.render(Some(40), false),
            "TIME     INSTANCE  WHO\n    REASON\n12s ago  p1        order@10.0.0.9:4711\n    GET /health: connection refused by\n    \
             the one who was asked\n"
        );
        table.row([Cell::new("9h ago"), Cell::new("p".repeat(100)), Cell::new("-"), Cell::new("")]);
        for width in [120, 80, 60, 40, 24, 16] {
            let text = table.render(Some(width), false);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert_eq!(text.matches('p').count(), 101, "{text}");
        }
        assert_eq!(table.render(Some(12), false), table.render(None, false), "too narrow to be of any use");
    }

    #[test]
    fn wide_lists_fit() {
        let mut table = Table::new((0..12).map(|nth| format!("COLUMN{nth}")));
        table.row((0..12).map(|nth| Cell::new("word ".repeat(nth))));
        for width in [40, 80, 100, 120] {
            let text = table.render(Some(width), false);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }
}
