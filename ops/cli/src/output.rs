//! What the command prints.

use std::{
    fmt::{self, Display},
    io::{self, Write},
};

use serde::Serialize;

use crate::error::CliError;

/// For whom results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Person,
    Program,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    reader: Reader,
    /// Columns' widths so far, so that the pages of one list stay aligned.
    widths: Vec<usize>,
}

/// A result that can be shown as a row of a table.
pub(crate) trait Row: Serialize {
    /// The columns' names.
    const HEADER: &'static [&'static str];
    /// The columns.
    fn cells(&self) -> Vec<String>;
}

impl Output {
    /// Text for people.
    pub(crate) fn human() -> Self {
        Self { reader: Reader::Person, widths: Vec::new() }
    }

    /// As the `--json` flag says.
    pub(crate) fn new(args: &crate::args::TargetArgs) -> Self {
        let reader = if args.json { Reader::Program } else { Reader::Person };
        Self { reader, widths: Vec::new() }
    }

    /// One line for people, whoever reads.
    pub(crate) fn line(&self, line: fmt::Arguments<'_>) -> Result<(), CliError> {
        print(&format!("{line}\n"))
    }

    /// One line for people; programs find the same in what they are given.
    pub(crate) fn remark(&self, line: fmt::Arguments<'_>) -> Result<(), CliError> {
        match self.reader {
            Reader::Person => self.line(line),
            Reader::Program => Ok(()),
        }
    }

    /// Characters as they are.
    pub(crate) fn raw(&self, text: &str) -> Result<(), CliError> {
        print(text)
    }

    /// Something of several tables for people, one line for programs.
    pub(crate) fn whole(
        &mut self,
        thing: &impl Serialize,
        tables: impl FnOnce(&mut Self) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        match self.reader {
            Reader::Person => tables(self),
            Reader::Program => print(&json_line(thing)),
        }
    }

    /// What comes next has other columns.
    pub(crate) fn next_table(&mut self) {
        self.widths.clear();
    }

    /// What was done: a sentence for people, the result for programs.
    pub(crate) fn done(
        &self,
        sentence: fmt::Arguments<'_>,
        result: &impl Serialize,
    ) -> Result<(), CliError> {
        match self.reader {
            Reader::Person => self.line(sentence),
            Reader::Program => print(&json_line(result)),
        }
    }

    /// One page of a table; the header goes before the first.
    pub(crate) fn rows<R: Row>(&mut self, rows: &[R]) -> Result<(), CliError> {
        match self.reader {
            Reader::Person => {
                let header = self.widths.is_empty().then_some(R::HEADER);
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                print(&aligned(&mut self.widths, header, &cells))
            }
            Reader::Program => print(&rows.iter().map(json_line).collect::<String>()),
        }
    }

    /// One thing: its fields below each other for people.
    pub(crate) fn fields(
        &self,
        fields: &[(&str, String)],
        thing: &impl Serialize,
    ) -> Result<(), CliError> {
        match self.reader {
            Reader::Person => {
                let cells: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| vec![(*name).to_owned(), value.clone()])
                    .collect();
                print(&aligned(&mut Vec::new(), None, &cells))
            }
            Reader::Program => print(&json_line(thing)),
        }
    }
}

/// Prints an error for people.
pub(crate) fn complain(error: &impl Display) {
    // Where even this cannot be written there is nobody to tell.
    let _lost = writeln!(io::stderr().lock(), "rookery: {error}");
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("results have string keys only");
    format!("{json}\n")
}

/// Rows with their columns below each other, two spaces between; widths only grow.
fn aligned(widths: &mut Vec<usize>, header: Option<&[&str]>, rows: &[Vec<String>]) -> String {
    let header = header.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let rows: Vec<&Vec<String>> = header.iter().chain(rows).collect();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(*row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&*widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut widths = Vec::new();
        let rows = [row(&["alice", "1"]), row(&["ü", "22"])];
        let first = aligned(&mut widths, Some(&["name", "size"]), &rows);
        assert_eq!(first, "name   size\nalice  1\nü      22\n");
        let second = aligned(&mut widths, None, &[row(&["bob", "333"])]);
        assert_eq!(second, "bob    333\n");
        assert_eq!(aligned(&mut Vec::new(), None, &[]), "");
    }
}
