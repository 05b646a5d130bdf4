//! Columns for people: names left, numbers right. Must not know what the numbers are.

use std::fmt;

/// A table with a title.
#[derive(Debug)]
pub struct Table {
    /// One line above, with the conditions of the measurement.
    pub title: String,
    /// Heads; the first column is a name, the others are numbers.
    pub columns: Vec<&'static str>,
    /// One text per column.
    pub rows: Vec<Vec<String>>,
    /// Lines below.
    pub notes: Vec<String>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads: Vec<String> = self.columns.iter().map(|&head| head.to_owned()).collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let width =
            |column: usize| lines().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        writeln!(f, "{}", self.title)?;
        for line in lines() {
            let cells =
                line.iter().zip(&widths).enumerate().map(|(column, (text, &width))| {
                    if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
                });
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  ({note})"))
    }
}

/// What was not measured.
pub(super) fn or_dash(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let rows = vec![vec!["a".to_owned(), "1.0".to_owned()], vec!["longer".to_owned(), or_dash(None, 1)]];
        let table = Table { title: "t".to_owned(), columns: vec!["who", "MiB"], rows, notes: vec!["n".to_owned()] };
        assert_eq!(table.to_string(), "t\n  who     MiB\n  a       1.0\n  longer    -\n  (n)\n");
    }
}
