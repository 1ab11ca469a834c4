//! Aligned columns of text.

use crate::cli::terminal::printable;

/// Between two columns.
const GAP: &str = "  ";
/// What is left of a column at least.
const NARROWEST: usize = 8;

/// How one column is laid out.
pub(super) struct Column<'a> {
    name: &'a str,
    is_number: bool,
    gives_way: bool,
}

impl<'a> Column<'a> {
    /// Text, which is shown whole.
    pub(super) fn whole(name: &'a str) -> Self {
        Self { name, is_number: false, gives_way: false }
    }

    /// Text, which is cut where there is no room for it.
    pub(super) fn text(name: &'a str) -> Self {
        Self { name, is_number: false, gives_way: true }
    }

    /// Numbers, one below the other.
    pub(super) fn number(name: &'a str) -> Self {
        Self { name, is_number: true, gives_way: false }
    }
}

/// A header and rows, in `width` characters where that can be; nothing if there are no rows.
pub(super) fn table(columns: &[Column<'_>], rows: &[Vec<String>], width: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let shown = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let header: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
    let longest = |at: usize| {
        let cells = rows.iter().chain([&header]).filter_map(|row| row.get(at));
        cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(longest).collect();
    let room = width.saturating_sub(GAP.len() * columns.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let cuttable = widths.iter_mut().zip(columns).filter(|(_, column)| column.gives_way);
        match cuttable.map(|(width, _)| width).max().filter(|widest| **widest > NARROWEST) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| {
            let cell = cut(cell, width);
            if column.is_number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        let cells: Vec<String> = cells.collect();
        cells.join(GAP).trim_end().to_owned() + "\n"
    };
    std::iter::once(&header).chain(&rows).map(line).collect()
}

/// At most `width` characters, and a sign that there were more.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
