//! Rows of text in aligned columns.

use std::fmt;

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// What stands above it.
    pub(crate) title: &'static str,
    /// Least width in letters.
    pub(crate) width: usize,
    /// The side that cells keep to.
    pub(crate) side: Side,
}

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Column {
    /// A column of words.
    pub(crate) const fn left(title: &'static str, width: usize) -> Self {
        Self { title, width, side: Side::Left }
    }

    /// A column of numbers.
    pub(crate) const fn right(title: &'static str, width: usize) -> Self {
        Self { title, width, side: Side::Right }
    }
}

/// Writes one row with two spaces between its cells, without a line end and without spaces at the
/// end. Cells without a column stand as they are.
pub(crate) fn row(out: &mut dyn fmt::Write, columns: &[Column], cells: &[&str]) -> fmt::Result {
    let mut gap = 0;
    for (index, cell) in cells.iter().enumerate() {
        let (width, side) = columns.get(index).map_or((0, Side::Left), |column| (column.width, column.side));
        let padding = width.saturating_sub(cell.chars().count());
        let (before, after) = match side {
            Side::Left => (0, padding),
            Side::Right => (padding, 0),
        };
        if !cell.is_empty() {
            write!(out, "{:1$}{cell}", "", gap + before)?;
            gap = 0;
        } else {
            gap += before;
        }
        gap += after + 2;
    }
    Ok(())
}

/// Writes the titles as a row.
pub(crate) fn head(out: &mut dyn fmt::Write, columns: &[Column]) -> fmt::Result {
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    row(out, columns, &titles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_to_their_sides() {
        let columns = [Column::left("word", 6), Column::right("number", 8)];
        let mut text = String::new();
        for cells in [&["one", "1"][..], &["", "12345"], &["a longer one", "-0.5", "and more"], &["end"]] {
            row(&mut text, &columns, cells).unwrap();
            text.push('|');
        }
        assert_eq!(text, "one            1|           12345|a longer one      -0.5  and more|end|");
        text.clear();
        head(&mut text, &columns).unwrap();
        assert_eq!(text, "word      number");
    }
}
